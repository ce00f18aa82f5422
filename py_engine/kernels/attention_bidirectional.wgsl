// Every token sees all of its own sequence, spans[token] = (first token, end): a thread for one
// query of one head, four keys a step, no barrier. The threads of a workgroup share the head and
// mostly the sequence, and so read the same keys at the same time.
const HEAD4 = HEAD_DIM / 4u;
const ROW4 = 3u * N_HEADS * HEAD4;
const MASKED = -3.4e38;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let token = group.y * WORKGROUP + thread;
  if (token >= state[STATE_N_TOKENS]) { return; }
  let head = group.x;
  let span = spans[token];
  let query = token * ROW4 + head * HEAD4;
  var q: array<vec4f, HEAD4>;
  var sums: array<vec4f, HEAD4>;
  for (var i = 0u; i < HEAD4; i++) { q[i] = qkv[query + i] * SCALE; }
  var highest = MASKED;
  var denominator = 0.0;
  for (var key = span.x; key < span.y; key += 4u) {
    let wanted = key + vec4u(0u, 1u, 2u, 3u);
    let k = min(wanted, vec4u(span.y - 1u)) * ROW4 + (N_HEADS + head) * HEAD4;
    let v = k + N_HEADS * HEAD4;
    var scores = vec4f(0.0);
    for (var i = 0u; i < HEAD4; i++) {
      scores += vec4f(dot(q[i], qkv[k.x + i]), dot(q[i], qkv[k.y + i]),
                      dot(q[i], qkv[k.z + i]), dot(q[i], qkv[k.w + i]));
    }
    scores = select(vec4f(MASKED), scores, wanted < vec4u(span.y));
    let higher = max(highest, max(max(scores.x, scores.y), max(scores.z, scores.w)));
    let correction = exp(highest - higher);
    let weights = exp(scores - higher);
    highest = higher;
    denominator = denominator * correction + dot(weights, vec4f(1.0));
    for (var i = 0u; i < HEAD4; i++) {
      sums[i] = sums[i] * correction + weights.x * qkv[v.x + i] + weights.y * qkv[v.y + i]
                                     + weights.z * qkv[v.z + i] + weights.w * qkv[v.w + i];
    }
  }
  for (var i = 0u; i < HEAD4; i++) { output[(token * N_HEADS + head) * HEAD4 + i] = sums[i] / denominator; }
}
