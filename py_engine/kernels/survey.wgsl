// Looks at a slice of the vocabulary in each workgroup: its likeliest token and its mass.
alias Sum = f32;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let sampling = enter_row(group);
  let logits_at = row * LOGITS_STRIDE;
  let first = group.x * SLICE;
  let end = min(first + SLICE, VOCABULARY);
  var mine = Candidate(LOWEST, end - 1u);
  for (var i = first + thread; i < end; i += WORKGROUP) {
    let logit = logits[logits_at + i];
    if (logit > mine.value) { mine = Candidate(logit, i); }
  }
  let likeliest = workgroup_best(thread, mine);
  var mass = 0.0;
  if (sampling.temperature > GREEDY) {
    for (var i = first + thread; i < end; i += WORKGROUP) {
      mass += exp((logits[logits_at + i] - likeliest.value) / sampling.temperature);
    }
    mass = workgroup_sum(thread, mass);
  }
  if (thread == 0u) {
    let found = vec4f(likeliest.value, mass, f32(likeliest.token), 0.0);
    survey[row * SLICES + group.x] = found;
  }
}
