// Causal attention of a chunk for GPUs (FlashAttention-2: Dao 2023): four lanes side by side have QUERIES
// queries of a head, a fourth of its columns each, in registers. Keys and values come through workgroup
// memory, TILE_KEYS at a time, which all queries of the workgroup share; a lane weighs one key of four.
const LANES = 4u;
const FOURS = HEAD4 / LANES;
const TOKENS = WORKGROUP / LANES * QUERIES;
const VALUES = TILE_KEYS * HEAD4;
const MASKED = -3.4e38;
// First the sinks, seen from the query's place in the window, then all else.
const FIRST_PHASE = select(1u, 0u, SINKS > 0u);
const GROUP_NUMBERS = vec4u(0u, 1u, 2u, 3u);

// Keys, then values; before them queries on their way to registers, as many as keys and values at the most.
var<workgroup> tile: array<vec4f, 2u * VALUES>;

fn sum4(v: vec4f) -> f32 { return (v.x + v.y) + (v.z + v.w); }

// Adds up what four lanes have of four keys each; a lane gets the sum of the key of its number.
fn sum_of_lanes(parts: vec4f, lane: u32) -> f32 {
  let is_odd = (lane & 1u) == 1u;
  let pair = select(parts.xz, parts.yw, is_odd) + quadSwapX(select(parts.yw, parts.xz, is_odd));
  let is_high = lane >= 2u;
  return select(pair.x, pair.y, is_high) + quadSwapY(select(pair.y, pair.x, is_high));
}

fn largest_of_lanes(v: vec4f) -> f32 {
  let mine = max(max(v.x, v.y), max(v.z, v.w));
  let pair = max(mine, quadSwapX(mine));
  return max(pair, quadSwapY(pair));
}

fn total_of_lanes(mine: f32) -> f32 {
  let pair = mine + quadSwapX(mine);
  return pair + quadSwapY(pair);
}

fn of_each_lane(x: f32) -> vec4f {
  return vec4f(quadBroadcast(x, 0u), quadBroadcast(x, 1u), quadBroadcast(x, 2u), quadBroadcast(x, 3u));
}

fn stage_queries(thread: u32, first_token: u32, last_token: u32, number: u32, in_window: bool) {
  for (var item = thread; item < TOKENS * LANES; item += WORKGROUP) {
    let n = item / LANES;
    let token = min(first_token + n, last_token);
    let position = state[STATE_POSITION] + token;
    let place = select(position, visible_keys(position) - 1u, in_window);
    let head = head_of(token, number, true);
    let statistics = head_statistics(head);
    let scale = query_scale(position);
    for (var e = item % LANES; e < HEAD8; e += LANES) {
      let eight = turned(head, e, place, statistics);
      tile[n * HEAD4 + low_of(e)] = eight.low * scale;
      tile[n * HEAD4 + high_of(e)] = eight.high * scale;
    }
  }
}

fn stage_keys(thread: u32, base: u32, end: u32, cache_head: u32) {
  for (var item = thread; item < VALUES; item += WORKGROUP) {
    let row = cached_at(slot_of(min(base + item / HEAD4, end - 1u)), cache_head);
    tile[item] = k_at(row + item % HEAD4) * k_scale(row);
    tile[VALUES + item] = v_at(row + item % HEAD4) * v_scale(row);
  }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(subgroup_invocation_id) invocation: u32, @builtin(subgroup_size) size: u32) {
  let first_token = group.y * TOKENS;
  let n_tokens = state[STATE_N_TOKENS];
  if (first_token >= n_tokens) { return; }
  let last_token = min(first_token + TOKENS, n_tokens) - 1u;
  // Lanes side by side in a subgroup, wherever its threads are in the workgroup.
  let thread = subgroup * min(size, WORKGROUP) + invocation;
  let lane = thread % LANES;
  let first_query = thread / LANES * QUERIES;
  let number = FIRST_CACHE_HEAD * N_REP + group.x;
  var sums: array<vec4f, QUERIES * FOURS>;
  var highest: array<f32, QUERIES>;
  var denominators: array<f32, QUERIES>;
  for (var t = 0u; t < QUERIES; t++) { highest[t] = MASKED; }
  for (var phase = FIRST_PHASE; phase < 2u; phase++) {
    let is_sinks = phase == 0u;
    workgroupBarrier();
    stage_queries(thread, first_token, last_token, number, is_sinks);
    workgroupBarrier();
    var queries: array<vec4f, QUERIES * FOURS>;
    var firsts: array<u32, QUERIES>;
    var ends: array<u32, QUERIES>;
    for (var t = 0u; t < QUERIES; t++) {
      for (var f = 0u; f < FOURS; f++) {
        queries[t * FOURS + f] = tile[(first_query + t) * HEAD4 + f * LANES + lane];
      }
      let token = min(first_token + first_query + t, last_token);
      let position = state[STATE_POSITION] + token;
      let after = position + 1u + ahead(token);
      firsts[t] = select(first_in_window(position), 0u, is_sinks);
      ends[t] = select(after, min(after, SINKS), is_sinks);
    }
    // No query sees keys before those of the first one, or behind those of the last.
    let begin = select(first_in_window(state[STATE_POSITION] + first_token), 0u, is_sinks);
    let behind = state[STATE_POSITION] + last_token + 1u + ahead(last_token);
    let end = select(behind, min(behind, SINKS), is_sinks);
    for (var base = begin; base < end; base += TILE_KEYS) {
      workgroupBarrier();
      stage_keys(thread, base, end, group.x / N_REP);
      workgroupBarrier();
      // Chromium zeroes a loop's variable that is not initialised in the first round only.
      var weights = array<vec4f, QUERIES>();
      for (var g = 0u; g < 4u; g++) {
        var products = array<array<vec4f, 4>, QUERIES>();
        for (var f = 0u; f < FOURS; f++) {
          let at = g * 4u * HEAD4 + f * LANES + lane;
          let k = array<vec4f, 4>(tile[at], tile[at + HEAD4], tile[at + 2u * HEAD4], tile[at + 3u * HEAD4]);
          for (var t = 0u; t < QUERIES; t++) {
            let x = queries[t * FOURS + f];
            for (var j = 0u; j < 4u; j++) { products[t][j] += x * k[j]; }
          }
        }
        let key = base + 4u * g + lane;
        for (var t = 0u; t < QUERIES; t++) {
          let p = products[t];
          let score = score_of(sum_of_lanes(vec4f(sum4(p[0]), sum4(p[1]), sum4(p[2]), sum4(p[3])), lane));
          let seen = select(MASKED, score, key >= firsts[t] && key < ends[t]);
          weights[t] = select(weights[t], vec4f(seen), GROUP_NUMBERS == vec4u(g));
        }
      }
      for (var t = 0u; t < QUERIES; t++) {
        let higher = max(highest[t], largest_of_lanes(weights[t]));
        let correction = exp(highest[t] - higher);
        highest[t] = higher;
        weights[t] = exp(weights[t] - higher);
        denominators[t] = denominators[t] * correction + sum4(weights[t]);
        for (var f = 0u; f < FOURS; f++) { sums[t * FOURS + f] *= correction; }
      }
      for (var g = 0u; g < 4u; g++) {
        var shares: array<vec4f, QUERIES>;
        for (var t = 0u; t < QUERIES; t++) { shares[t] = of_each_lane(weights[t][g]); }
        for (var f = 0u; f < FOURS; f++) {
          let at = VALUES + g * 4u * HEAD4 + f * LANES + lane;
          let v = array<vec4f, 4>(tile[at], tile[at + HEAD4], tile[at + 2u * HEAD4], tile[at + 3u * HEAD4]);
          for (var t = 0u; t < QUERIES; t++) {
            var sum = sums[t * FOURS + f];
            sum += shares[t].x * v[0];
            sum += shares[t].y * v[1];
            sum += shares[t].z * v[2];
            sum += shares[t].w * v[3];
            sums[t * FOURS + f] = sum;
          }
        }
      }
    }
  }
  for (var t = 0u; t < QUERIES; t++) {
    let token = first_token + first_query + t;
    let denominator = total_of_lanes(denominators[t]);
    for (var f = 0u; f < FOURS && token <= last_token; f++) {
      let i = f * LANES + lane;
      output[output_at(token, number) + i] = output_of(sums[t * FOURS + f] / denominator, token, number, i);
    }
  }
}
