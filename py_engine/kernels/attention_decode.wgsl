// One workgroup for each KV head with all its query heads (GQA packing: K and V are read once).
// Prologue: norm and RoPE of q and k, append of k and v to the cache. Then online softmax, a key a thread.
const OUTPUTS = N_REP * HEAD4;
const OUTPUTS_PER_THREAD = (OUTPUTS + WORKGROUP - 1u) / WORKGROUP;
const MASKED = -3.4e38;
// Sinks are seen from the query's place in the window, all else from its place in the sequence.
const SINKS_TURN = SINKS > 0u && ROTARY_DIM > 0u;
const TURNED = select(N_REP, 2u * N_REP, SINKS_TURN);
const UNITS = (TURNED + select(0u, 2u, APPENDS)) * HEAD8;

var<workgroup> q: array<vec4f, TURNED * HEAD4>;
var<workgroup> scores: array<f32, N_REP * WORKGROUP>;
var<workgroup> weights: array<f32, N_REP * WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = enter_row(group);
  let position = position_of(row);
  let n_keys = visible_keys(position);
  let kv_head = FIRST_CACHE_HEAD + group.x;
  let here = cached_at(slot_of(position), group.x);
  let scale = query_scale(position);
  prepare_norms(row, thread);
  for (var unit = thread; unit < UNITS; unit += WORKGROUP) {
    let part = unit / HEAD8;
    let i = unit % HEAD8;
    if (part < TURNED) {
      let head = head_of(row, kv_head * N_REP + part % N_REP, true);
      let place = select(position, n_keys - 1u, part >= N_REP);
      let eight = turned(head, i, place, head_statistics(head));
      q[part * HEAD4 + low_of(i)] = eight.low * scale;
      q[part * HEAD4 + high_of(i)] = eight.high * scale;
    } else if (part == TURNED) {
      append_key(here, i, row, kv_head, position);
    } else {
      append_value(here, i, row, kv_head);
    }
  }
  if (APPENDS) { keep_head(here, thread); }
  storageBarrier();
  workgroupBarrier();

  let oldest = slot_of(first_in_window(position));
  var sums: array<vec4f, OUTPUTS_PER_THREAD>;
  var denominators: array<f32, OUTPUTS_PER_THREAD>;
  var maxima: array<f32, N_REP>;
  for (var r = 0u; r < N_REP; r++) { maxima[r] = MASKED; }
  for (var base = 0u; base < n_keys; base += WORKGROUP) {
    let key = base + thread;
    // Chromium 156 zeroes a variable without initialiser only in the loop's first round.
    var dots = array<f32, N_REP>();
    if (key < n_keys) {
      let cached = cached_at(slot_of_key(key, oldest), group.x);
      let turned = select(0u, OUTPUTS, SINKS_TURN && key < SINKS);
      for (var i = 0u; i < HEAD4; i++) {
        let k = k_at(cached + i);
        for (var r = 0u; r < N_REP; r++) { dots[r] += dot(q[turned + r * HEAD4 + i], k); }
      }
      for (var r = 0u; r < N_REP; r++) { dots[r] *= k_scale(cached); }
    }
    for (var r = 0u; r < N_REP; r++) {
      scores[r * WORKGROUP + thread] = select(MASKED, score_of(dots[r]), key < n_keys);
    }
    workgroupBarrier();
    var corrections: array<f32, N_REP>;
    for (var r = 0u; r < N_REP; r++) {
      var highest = maxima[r];
      for (var j = 0u; j < WORKGROUP; j++) { highest = max(highest, scores[r * WORKGROUP + j]); }
      corrections[r] = exp(maxima[r] - highest);
      maxima[r] = highest;
      weights[r * WORKGROUP + thread] = exp(scores[r * WORKGROUP + thread] - highest);
    }
    workgroupBarrier();
    let n_here = min(WORKGROUP, n_keys - base);
    for (var o = 0u; o < OUTPUTS_PER_THREAD; o++) {
      let output_index = thread + o * WORKGROUP;
      if (output_index < OUTPUTS) {
        let r = output_index / HEAD4;
        let i = output_index % HEAD4;
        var sum = sums[o] * corrections[r];
        var denominator = denominators[o] * corrections[r];
        for (var j = 0u; j < n_here; j++) {
          let weight = weights[r * WORKGROUP + j];
          denominator += weight;
          let cached = cached_at(slot_of_key(base + j, oldest), group.x);
          sum += weight * v_scale(cached) * v_at(cached + i);
        }
        sums[o] = sum;
        denominators[o] = denominator;
      }
    }
  }
  for (var o = 0u; o < OUTPUTS_PER_THREAD; o++) {
    let output_index = thread + o * WORKGROUP;
    if (output_index < OUTPUTS) {
      let x = sums[o] / denominators[o];
      let head = kv_head * N_REP + output_index / HEAD4;
      let i = output_index % HEAD4;
      output[output_at(row, head) + i] = output_of(x, row, head, i);
    }
  }
}
