// Causal attention of a chunk: a subgroup has one head's queries of eight tokens.
var<private> cache_head: u32;

fn row_of(key: u32) -> u32 { return cached_at(slot_of(key), cache_head); }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(subgroup_invocation_id) lane: u32) {
  let first = group.y * (WORKGROUP / LANES * QUERIES) + subgroup * QUERIES;
  let n_tokens = state[STATE_N_TOKENS];
  if (first >= n_tokens) { return; }
  cache_head = group.x / N_REP;
  begin_attending(lane);
  // First the sinks, seen from the query's place in the window, then all else.
  var phase = FIRST_PHASE;
  loop {
    var firsts: array<u32, QUERIES>;
    var ends: array<u32, QUERIES>;
    var begin = 0xFFFFFFFFu;
    var end = 0u;
    var t = 0u;
    loop {
      let token = min(first + t, n_tokens - 1u);
      let position = state[STATE_POSITION] + token;
      let place = select(visible_keys(position) - 1u, position, phase == 1u);
      queries[t] = query_piece(head_of(token, FIRST_CACHE_HEAD * N_REP + group.x, true), place, query_scale(position), lane);
      let last = position + 1u + ahead(token);
      firsts[t] = select(0u, first_in_window(position), phase == 1u);
      ends[t] = select(min(last, SINKS), last, phase == 1u);
      begin = min(begin, firsts[t]);
      end = max(end, ends[t]);
      continuing { t++; break if t == QUERIES; }
    }
    attend(begin, end, Sight(vec4u(firsts[0], firsts[1], firsts[2], firsts[3]),
                             vec4u(firsts[4], firsts[5], firsts[6], firsts[7]),
                             vec4u(ends[0], ends[1], ends[2], ends[3]),
                             vec4u(ends[4], ends[5], ends[6], ends[7])), lane);
    continuing { phase++; break if phase == 2u; }
  }
  for (var t = 0u; t < min(QUERIES, n_tokens - first); t++) { finish_query(t, Part(first + t, group.x, 0u)); }
}
