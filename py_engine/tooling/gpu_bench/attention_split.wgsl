// Decode's attention with the keys shared out: a workgroup for each KV head and each of SPLITS parts
// of the keys. It leaves its softmax's maximum and denominator, and sums that are not divided yet;
// `attention_combine` joins them. With one part it leaves the result itself.
const MASKED = -3.4e38;
const SUBGROUPS = THREADS / LANES;
const KEY_GROUPS = THREADS / HEAD4;
const OUTPUTS = N_REP * HEAD4;

var<workgroup> q: array<vec4f, OUTPUTS>;
var<workgroup> weights: array<f32, N_REP * THREADS>;
var<workgroup> reduced: array<f32, N_REP * SUBGROUPS>;
var<workgroup> group_sums: array<vec4f, KEY_GROUPS * OUTPUTS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let position = state[STATE_POSITION];
  let n_keys = visible_keys(position);
  let kv_head = FIRST_CACHE_HEAD + group.x;
  let size = keys_per_split(n_keys);
  let first_key = group.y * size;
  let end_key = min(first_key + size, n_keys);
  if (first_key >= n_keys) { return; }
  let here = cached_at(slot_of(position), group.x);
  let scale = query_scale(position);
  let appends = end_key == n_keys;
  for (var unit = thread; unit < (N_REP + 2u) * HEAD8; unit += THREADS) {
    let part = unit / HEAD8;
    let i = unit % HEAD8;
    if (part == N_REP + 1u) {
      if (appends) {
        let at = value_at(0u, kv_head) + 2u * i;
        v_cache[here + 2u * i] = pack_halfs(qkv[at]);
        v_cache[here + 2u * i + 1u] = pack_halfs(qkv[at + 1u]);
      }
    } else {
      let is_query = part < N_REP;
      let head = head_of(0u, select(kv_head, kv_head * N_REP + part, is_query), is_query);
      let eight = turned(head, i, position, head_statistics(head));
      if (is_query) {
        q[part * HEAD4 + low_of(i)] = eight.low * scale;
        q[part * HEAD4 + high_of(i)] = eight.high * scale;
      } else if (appends) {
        k_cache[here + low_of(i)] = pack_halfs(eight.low);
        k_cache[here + high_of(i)] = pack_halfs(eight.high);
      }
    }
  }
  storageBarrier();
  workgroupBarrier();

  let oldest = slot_of(first_in_window(position));
  let column = thread % HEAD4;
  let key_group = thread / HEAD4;
  var sums = array<vec4f, N_REP>();
  var denominators = array<f32, N_REP>();
  var maxima: array<f32, N_REP>;
  for (var r = 0u; r < N_REP; r++) { maxima[r] = MASKED; }
  for (var base = first_key; base < end_key; base += THREADS) {
    let key = base + thread;
    var scores = array<f32, N_REP>();
    if (key < end_key) {
      let row = cached_at(slot_of_key(key, oldest), group.x);
      for (var i = 0u; i < HEAD4; i++) {
        let k = unpack_halfs(k_cache[row + i]);
        for (var r = 0u; r < N_REP; r++) { scores[r] += dot(q[r * HEAD4 + i], k); }
      }
    }
    for (var r = 0u; r < N_REP; r++) {
      scores[r] = select(MASKED, score_of(scores[r]), key < end_key);
      let highest = subgroupMax(scores[r]);
      if (lane == 0u) { reduced[r * SUBGROUPS + subgroup] = highest; }
    }
    workgroupBarrier();
    for (var r = 0u; r < N_REP; r++) {
      var highest = maxima[r];
      for (var s = 0u; s < SUBGROUPS; s++) { highest = max(highest, reduced[r * SUBGROUPS + s]); }
      let correction = exp(maxima[r] - highest);
      maxima[r] = highest;
      let weight = exp(scores[r] - highest);
      weights[r * THREADS + thread] = weight;
      denominators[r] = denominators[r] * correction + weight;
      sums[r] *= correction;
    }
    workgroupBarrier();
    let n_here = min(THREADS, end_key - base);
    for (var j = key_group; j < n_here; j += KEY_GROUPS) {
      let v = unpack_halfs(v_cache[cached_at(slot_of_key(base + j, oldest), group.x) + column]);
      for (var r = 0u; r < N_REP; r++) { sums[r] += weights[r * THREADS + j] * v; }
    }
  }
  for (var r = 0u; r < N_REP; r++) {
    group_sums[key_group * OUTPUTS + r * HEAD4 + column] = sums[r];
    let denominator = subgroupAdd(denominators[r]);
    if (lane == 0u) { weights[r * SUBGROUPS + subgroup] = denominator; }
  }
  workgroupBarrier();
  for (var o = thread; o < OUTPUTS; o += THREADS) {
    let r = o / HEAD4;
    var sum = vec4f();
    for (var g = 0u; g < KEY_GROUPS; g++) { sum += group_sums[g * OUTPUTS + o]; }
    var denominator = 0.0;
    for (var s = 0u; s < SUBGROUPS; s++) { denominator += weights[r * SUBGROUPS + s]; }
    // maxima[r] is the same in all threads, but its index must not come from a thread's number.
    var highest = maxima[0];
    for (var i = 1u; i < N_REP; i++) { highest = select(highest, maxima[i], i == r); }
    leave(kv_head * N_REP + r, group.y, o % HEAD4, sum, highest, denominator);
  }
}
