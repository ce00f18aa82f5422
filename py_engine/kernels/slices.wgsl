// What `survey` found in each slice of the vocabulary: its likeliest token's logit, its mass relative to
// that, and the token.
fn likeliest_of_slices() -> Candidate {
  let at = row * SLICES;
  var best = Candidate(survey[at].x, u32(survey[at].z));
  for (var i = 1u; i < SLICES; i++) {
    // Of equal tokens the first one, which has the lowest id.
    let slice = survey[at + i];
    if (slice.x > best.value) { best = Candidate(slice.x, u32(slice.z)); }
  }
  return best;
}

fn mass_of_slices(likeliest: f32, temperature: f32) -> f32 {
  var mass = 0.0;
  for (var i = 0u; i < SLICES; i++) {
    let slice = survey[row * SLICES + i];
    mass += slice.y * exp((slice.x - likeliest) / temperature);
  }
  return mass;
}
