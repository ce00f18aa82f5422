// attention_split with queries that share keys: each subgroup of a workgroup attends with QUERIES of the head's,
// which read the cache together.
var<private> oldest: u32;
var<private> cache_head: u32;

fn row_of(key: u32) -> u32 { return cached_at(slot_of_key(key, oldest), cache_head); }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let token = enter_row(group);
  let split = group.y;
  let position = position_of(token);
  let n_keys = visible_keys(position);
  let keys = keys_of_part(split, n_keys);
  let end_key = keys.y;
  cache_head = group.x;
  if (keys.x == end_key) {
    for (var r = thread; r < N_REP; r += WORKGROUP) { keep_nothing(Part(token, cache_head * N_REP + r, split)); }
    return;
  }
  let kv_head = FIRST_CACHE_HEAD + cache_head;
  let here = cached_at(slot_of(position), cache_head);
  let scale = query_scale(position);
  prepare_norms(token, thread);
  if (APPENDS && end_key == n_keys) {
    for (var i = thread; i < HEAD8; i += WORKGROUP) {
      append_key(here, i, token, kv_head, position);
      append_value(here, i, token, kv_head);
    }
    keep_head(here, thread);
  }
  storageBarrier();
  workgroupBarrier();

  oldest = slot_of(first_in_window(position));
  let first = subgroup * QUERIES;
  begin_attending(lane);
  // Sinks are seen from the query's place in the window, all else from its place in the sequence.
  var phase = FIRST_PHASE;
  loop {
    let place = select(n_keys - 1u, position, phase == 1u);
    var t = 0u;
    loop {
      let head = head_of(token, kv_head * N_REP + min(first + t, N_REP - 1u), true);
      queries[t] = query_piece(head, place, scale, lane);
      continuing { t++; break if t == QUERIES; }
    }
    let begin = select(keys.x, max(keys.x, SINKS), phase == 1u);
    let end = select(min(end_key, SINKS), end_key, phase == 1u);
    attend(begin, end, Sight(vec4u(0u), vec4u(0u), vec4u(end), vec4u(end)), lane);
    continuing { phase++; break if phase == 2u; }
  }
  for (var t = 0u; t < min(QUERIES, N_REP - first); t++) {
    finish_query(t, Part(token, cache_head * N_REP + first + t, split));
  }
}
