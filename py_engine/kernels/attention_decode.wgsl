// One workgroup for each KV head with all its query heads (GQA packing: K and V are read once).
// Prologue: norm and RoPE of q and k, append of k and v to the cache. Then online softmax, a key a thread.
const HEAD4 = HEAD_DIM / 4u;
const HEAD8 = HEAD_DIM / 8u;
const N_REP = N_HEADS / N_KV_HEADS;
const OUTPUTS = N_REP * HEAD4;
const OUTPUTS_PER_THREAD = (OUTPUTS + WORKGROUP - 1u) / WORKGROUP;
const MASKED = -3.4e38;
// Sinks are seen from the query's place in the window, all else from its place in the sequence.
const TURNED = select(N_REP, 2u * N_REP, SINKS > 0u);

var<workgroup> q: array<vec4f, TURNED * HEAD4>;
var<workgroup> scores: array<f32, N_REP * WORKGROUP>;
var<workgroup> weights: array<f32, N_REP * WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let position = state[STATE_POSITION];
  let n_keys = visible_keys(position);
  let cache = group.x * SLOTS * HEAD4;
  let here = cache + slot_of(position) * HEAD4;
  for (var unit = thread; unit < (TURNED + 2u) * HEAD8; unit += WORKGROUP) {
    let head = unit / HEAD8;
    let i = unit % HEAD8;
    if (head == TURNED + 1u) {
      let v = (N_HEADS + N_KV_HEADS + group.x) * HEAD4 + i;
      v_cache[here + i] = pack_halfs(qkv[v]);
      v_cache[here + HEAD8 + i] = pack_halfs(qkv[v + HEAD8]);
    } else {
      let is_query = head < TURNED;
      let first = select(N_HEADS + group.x, group.x * N_REP + head % N_REP, is_query) * HEAD4;
      let inverse_rms = inverse_head_rms(first);
      let low = normed_head(qkv[first + i], i, inverse_rms, is_query);
      let high = normed_head(qkv[first + HEAD8 + i], HEAD8 + i, inverse_rms, is_query);
      let r = rotation(select(position, n_keys - 1u, is_query && head >= N_REP), i);
      let low_turned = low * r.cosine - high * r.sine;
      let high_turned = high * r.cosine + low * r.sine;
      if (is_query) {
        q[head * HEAD4 + i] = low_turned * SCALE;
        q[head * HEAD4 + HEAD8 + i] = high_turned * SCALE;
      } else {
        k_cache[here + i] = pack_halfs(low_turned);
        k_cache[here + HEAD8 + i] = pack_halfs(high_turned);
      }
    }
  }
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
      let row = cache + slot_of_key(key, oldest) * HEAD4;
      let turned = select(0u, OUTPUTS, SINKS > 0u && key < SINKS);
      for (var i = 0u; i < HEAD4; i++) {
        let k = unpack_halfs(k_cache[row + i]);
        for (var r = 0u; r < N_REP; r++) { dots[r] += dot(q[turned + r * HEAD4 + i], k); }
      }
    }
    for (var r = 0u; r < N_REP; r++) {
      scores[r * WORKGROUP + thread] = select(MASKED, dots[r], key < n_keys);
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
          sum += weight * unpack_halfs(v_cache[cache + slot_of_key(base + j, oldest) * HEAD4 + i]);
        }
        sums[o] = sum;
        denominators[o] = denominator;
      }
    }
  }
  for (var o = 0u; o < OUTPUTS_PER_THREAD; o++) {
    let output_index = thread + o * WORKGROUP;
    if (output_index < OUTPUTS) {
      output[group.x * OUTPUTS + output_index] = sums[o] / denominators[o];
    }
  }
}
