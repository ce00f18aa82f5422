// Causal attention of a chunk: a thread for one query of one head, four keys a step, no barrier.
// The threads of a workgroup share the head and so read the same keys at the same time.
const MASKED = -3.4e38;
// First the sinks, seen from the query's place in the window, then all else.
const SINK_PHASE = 0u;
const FIRST_PHASE = select(1u, SINK_PHASE, SINKS > 0u);

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let token = group.y * WORKGROUP + thread;
  if (token >= state[STATE_N_TOKENS]) { return; }
  let head = head_of(token, FIRST_CACHE_HEAD * N_REP + group.x, true);
  let cache_head = group.x / N_REP;
  let position = state[STATE_POSITION] + token;
  let statistics = head_statistics(head);
  let scale = query_scale(position);
  var q: array<vec4f, HEAD4>;
  var sums: array<vec4f, HEAD4>;
  var highest = MASKED;
  var denominator = 0.0;
  for (var phase = FIRST_PHASE; phase < 2u; phase++) {
    var place = position;
    var oldest = first_in_window(position);
    var begin = first_in_window(position - thread);
    var end = position + 1u + ahead(token);
    if (SINKS > 0u && phase == SINK_PHASE) {
      place = visible_keys(position) - 1u;
      oldest = 0u;
      begin = 0u;
      end = min(end, SINKS);
    }
    for (var i = 0u; i < HEAD8; i++) {
      let eight = turned(head, i, place, statistics);
      q[low_of(i)] = eight.low * scale;
      q[high_of(i)] = eight.high * scale;
    }
    for (var key = begin; key < end; key += 4u) {
      let wanted = key + vec4u(0u, 1u, 2u, 3u);
      let rows = (slots_of(min(wanted, vec4u(end - 1u))) * CACHE_HEADS + cache_head) * CACHE_ROW;
      var scores = vec4f(0.0);
      for (var i = 0u; i < HEAD4; i++) {
        scores += vec4f(dot(q[i], k_at(rows.x + i)), dot(q[i], k_at(rows.y + i)),
                        dot(q[i], k_at(rows.z + i)), dot(q[i], k_at(rows.w + i)));
      }
      scores *= vec4f(k_scale(rows.x), k_scale(rows.y), k_scale(rows.z), k_scale(rows.w));
      scores = vec4f(score_of(scores.x), score_of(scores.y), score_of(scores.z), score_of(scores.w));
      scores = select(vec4f(MASKED), scores, (wanted < vec4u(end)) & (wanted >= vec4u(oldest)));
      let higher = max(highest, max(max(scores.x, scores.y), max(scores.z, scores.w)));
      let correction = exp(highest - higher);
      let weights = exp(scores - higher);
      highest = higher;
      denominator = denominator * correction + dot(weights, vec4f(1.0));
      let shares = weights * vec4f(v_scale(rows.x), v_scale(rows.y), v_scale(rows.z), v_scale(rows.w));
      for (var i = 0u; i < HEAD4; i++) {
        sums[i] = sums[i] * correction + shares.x * v_at(rows.x + i) + shares.y * v_at(rows.y + i)
            + shares.z * v_at(rows.z + i) + shares.w * v_at(rows.w + i);
      }
    }
  }
  for (var i = 0u; i < HEAD4; i++) {
    output[output_at(token, head.number) + i] = output_of(sums[i] / denominator, token, head.number, i);
  }
}
