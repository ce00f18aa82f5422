// Decode's attention with the keys shared out: a workgroup for each KV head and each of SPLITS parts
// of the keys. `keep_part` gets its softmax's maximum and denominator, and sums that are not divided yet.
// The part with the newest key appends it and its value.
const MASKED = -3.4e38;
const OUTPUTS = N_REP * HEAD4;
const TEAMS = WORKGROUP / LANES;
const KEY_GROUPS = WORKGROUP / HEAD4;
const SINKS_TURN = SINKS > 0u && ROTARY_DIM > 0u;
const TURNED = select(N_REP, 2u * N_REP, SINKS_TURN);

var<workgroup> q: array<vec4f, TURNED * HEAD4>;
var<workgroup> weights: array<f32, N_REP * WORKGROUP>;
var<workgroup> reduced: array<f32, N_REP * TEAMS>;
var<workgroup> group_sums: array<vec4f, WORKGROUP>;

fn attend(group: vec3u, thread: u32, team: u32, lane: u32) {
  let token = enter_row(group);
  let cache_head = group.x;
  let split = group.y;
  let position = position_of(token);
  let n_keys = visible_keys(position);
  let keys = keys_of_part(split, n_keys);
  let first_key = keys.x;
  let end_key = keys.y;
  if (first_key == end_key) {
    for (var r = thread; r < N_REP; r += WORKGROUP) { keep_nothing(Part(token, cache_head * N_REP + r, split)); }
    return;
  }
  let kv_head = FIRST_CACHE_HEAD + cache_head;
  let here = cached_at(slot_of(position), cache_head);
  let scale = query_scale(position);
  let appends = APPENDS && end_key == n_keys;
  prepare_norms(token, thread);
  for (var unit = thread; unit < (TURNED + 2u) * HEAD8; unit += WORKGROUP) {
    let part = unit / HEAD8;
    let i = unit % HEAD8;
    if (part < TURNED) {
      let head = head_of(token, kv_head * N_REP + part % N_REP, true);
      let place = select(position, n_keys - 1u, part >= N_REP);
      let eight = turned(head, i, place, head_statistics(head));
      q[part * HEAD4 + low_of(i)] = eight.low * scale;
      q[part * HEAD4 + high_of(i)] = eight.high * scale;
    } else if (appends && part == TURNED) {
      append_key(here, i, token, kv_head, position);
    } else if (appends) {
      append_value(here, i, token, kv_head);
    }
  }
  if (appends) { keep_head(here, thread); }
  storageBarrier();
  workgroupBarrier();

  let oldest = slot_of(first_in_window(position));
  let column = thread % HEAD4;
  let key_group = thread / HEAD4;
  var sums = array<vec4f, N_REP>();
  var denominators = array<f32, N_REP>();
  var maxima: array<f32, N_REP>;
  for (var r = 0u; r < N_REP; r++) { maxima[r] = MASKED; }
  for (var base = first_key; base < end_key; base += WORKGROUP) {
    let key = base + thread;
    // Chromium 156 zeroes a variable without initialiser only in the loop's first round.
    var scores = array<f32, N_REP>();
    if (key < end_key) {
      let row = cached_at(slot_of_key(key, oldest), cache_head);
      let seen_from = select(0u, OUTPUTS, SINKS_TURN && key < SINKS);
      for (var i = 0u; i < HEAD4; i++) {
        let k = k_at(row + i);
        for (var r = 0u; r < N_REP; r++) { scores[r] += dot(q[seen_from + r * HEAD4 + i], k); }
      }
      for (var r = 0u; r < N_REP; r++) { scores[r] *= k_scale(row); }
    }
    for (var r = 0u; r < N_REP; r++) {
      scores[r] = select(MASKED, score_of(scores[r]), key < end_key);
      let highest = team_max(scores[r]);
      if (lane == 0u) { reduced[r * TEAMS + team] = highest; }
    }
    workgroupBarrier();
    for (var r = 0u; r < N_REP; r++) {
      var highest = maxima[r];
      for (var t = 0u; t < TEAMS; t++) { highest = max(highest, reduced[r * TEAMS + t]); }
      let correction = exp(maxima[r] - highest);
      maxima[r] = highest;
      let weight = select(0.0, exp(scores[r] - highest), key < end_key);
      weights[r * WORKGROUP + thread] = weight;
      denominators[r] = denominators[r] * correction + weight;
      sums[r] *= correction;
    }
    workgroupBarrier();
    // Where a head's fours do not divide the workgroup, its last threads have no group.
    let n_here = select(0u, min(WORKGROUP, end_key - base), key_group < KEY_GROUPS);
    for (var j = key_group; j < n_here; j += KEY_GROUPS) {
      let row = cached_at(slot_of_key(base + j, oldest), cache_head);
      let v = v_scale(row) * v_at(row + column);
      for (var r = 0u; r < N_REP; r++) { sums[r] += weights[r * WORKGROUP + j] * v; }
    }
  }
  // All have read the maxima of the last round before the second barrier in it.
  for (var r = 0u; r < N_REP; r++) {
    let denominator = team_sum(denominators[r]);
    if (lane == 0u) { reduced[r * TEAMS + team] = denominator; }
  }
  for (var r = 0u; r < N_REP; r++) {
    group_sums[thread] = sums[r];
    workgroupBarrier();
    if (thread < HEAD4) {
      var sum = vec4f();
      for (var g = 0u; g < KEY_GROUPS; g++) { sum += group_sums[g * HEAD4 + thread]; }
      var denominator = 0.0;
      for (var t = 0u; t < TEAMS; t++) { denominator += reduced[r * TEAMS + t]; }
      keep_part(Part(token, cache_head * N_REP + r, split), thread, sum, maxima[r], denominator);
    }
    workgroupBarrier();
  }
}
