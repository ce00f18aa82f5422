// What `survey` found in each slice of the vocabulary: its likeliest token's logit, its mass relative to
// that, and the token.
fn likeliest_of_slices() -> Candidate {
  var best = Candidate(survey[0].x, u32(survey[0].z));
  for (var i = 1u; i < SLICES; i++) {
    // Of equal tokens the first one, which has the lowest id.
    if (survey[i].x > best.value) { best = Candidate(survey[i].x, u32(survey[i].z)); }
  }
  return best;
}

fn mass_of_slices(likeliest: f32) -> f32 {
  var mass = 0.0;
  for (var i = 0u; i < SLICES; i++) {
    mass += survey[i].y * exp((survey[i].x - likeliest) / sampling.temperature);
  }
  return mass;
}
