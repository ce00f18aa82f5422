// Joins the parts of `attention_split`, a thread for four elements of a head.
@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let head = id.x / HEAD4;
  let i = id.x % HEAD4;
  if (head >= N_HEADS) { return; }
  let n_keys = visible_keys(state[STATE_POSITION]);
  let size = keys_per_split(n_keys);
  let n_splits = (n_keys + size - 1u) / size;
  var highest = -3.4e38;
  for (var s = 0u; s < n_splits; s++) { highest = max(highest, split_softmax[head * SPLITS + s].x); }
  var sum = vec4f();
  var denominator = 0.0;
  for (var s = 0u; s < n_splits; s++) {
    let softmax = split_softmax[head * SPLITS + s];
    let weight = exp(softmax.x - highest);
    denominator += weight * softmax.y;
    sum += weight * split_sums[(head * SPLITS + s) * HEAD4 + i];
  }
  output[head * HEAD4 + i] = output_of(sum / denominator, 0u, head, i);
}
