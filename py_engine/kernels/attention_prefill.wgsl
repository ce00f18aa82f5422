// Causal attention of a chunk: a thread for one query of one head, four keys a step, no barrier.
// The threads of a workgroup share the head and so read the same keys at the same time.
const HEAD4 = HEAD_DIM / 4u;
const N_REP = N_HEADS / N_KV_HEADS;
const MASKED = -3.4e38;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let token = group.y * WORKGROUP + thread;
  if (token >= state[STATE_N_TOKENS]) { return; }
  let head = group.x;
  let position = state[STATE_POSITION] + token;
  let cache = (head / N_REP) * CONTEXT * HEAD4;
  let query = (token * (N_HEADS + 2u * N_KV_HEADS) + head) * HEAD4;
  var q: array<vec4f, HEAD4>;
  var sums: array<vec4f, HEAD4>;
  for (var i = 0u; i < HEAD4; i++) { q[i] = qkv[query + i] * SCALE; }
  var highest = MASKED;
  var denominator = 0.0;
  for (var key = 0u; key <= position; key += 4u) {
    let keys = min(key + vec4u(0u, 1u, 2u, 3u), vec4u(position));
    let rows = cache + keys * HEAD4;
    var scores = vec4f(0.0);
    for (var i = 0u; i < HEAD4; i++) {
      scores += vec4f(dot(q[i], unpack_halfs(k_cache[rows.x + i])), dot(q[i], unpack_halfs(k_cache[rows.y + i])),
                      dot(q[i], unpack_halfs(k_cache[rows.z + i])), dot(q[i], unpack_halfs(k_cache[rows.w + i])));
    }
    scores = select(vec4f(MASKED), scores, key + vec4u(0u, 1u, 2u, 3u) <= vec4u(position));
    let higher = max(highest, max(max(scores.x, scores.y), max(scores.z, scores.w)));
    let correction = exp(highest - higher);
    let weights = exp(scores - higher);
    highest = higher;
    denominator = denominator * correction + dot(weights, vec4f(1.0));
    for (var i = 0u; i < HEAD4; i++) {
      sums[i] = sums[i] * correction
          + weights.x * unpack_halfs(v_cache[rows.x + i]) + weights.y * unpack_halfs(v_cache[rows.y + i])
          + weights.z * unpack_halfs(v_cache[rows.z + i]) + weights.w * unpack_halfs(v_cache[rows.w + i]);
    }
  }
  for (var i = 0u; i < HEAD4; i++) { output[(token * N_HEADS + head) * HEAD4 + i] = sums[i] / denominator; }
}
