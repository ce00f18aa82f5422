// Joins the parts of `attention_split`, a thread for four elements of a head.
// A part's maximum and denominator.
fn part_softmax(part: u32) -> vec2f { return split_parts[part * (HEAD4 + 1u) + HEAD4].xy; }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let cached = id.x / HEAD4;
  let i = id.x % HEAD4;
  if (cached >= CACHE_HEADS * N_REP) { return; }
  let n_keys = visible_keys(state[STATE_POSITION]);
  let size = keys_per_split(n_keys);
  let n_splits = (n_keys + size - 1u) / size;
  let first = cached * SPLITS;
  var highest = -3.4e38;
  for (var s = 0u; s < n_splits; s++) { highest = max(highest, part_softmax(first + s).x); }
  var sum = vec4f();
  var denominator = 0.0;
  for (var s = 0u; s < n_splits; s++) {
    let softmax = part_softmax(first + s);
    let weight = exp(softmax.x - highest);
    denominator += weight * softmax.y;
    sum += weight * split_parts[(first + s) * (HEAD4 + 1u) + i];
  }
  let head = FIRST_CACHE_HEAD * N_REP + cached;
  output[head * HEAD4 + i] = output_of(sum / denominator, 0u, head, i);
}
