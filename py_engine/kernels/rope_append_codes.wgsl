// Keys, normed and rotated, and values of every token of a chunk into a cache of codes, which need
// the largest of a head: a workgroup has one head of one token.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let token = group.y;
  prepare_norms(token, thread);
  let number = group.x;
  let position = position_of(token);
  let here = cached_at(slot_of(position), number);
  for (var unit = thread; unit < 2u * HEAD8; unit += WORKGROUP) {
    let i = unit % HEAD8;
    if (unit < HEAD8) {
      append_key(here, i, token, FIRST_CACHE_HEAD + number, position);
    } else {
      append_value(here, i, token, FIRST_CACHE_HEAD + number);
    }
  }
  keep_head(here, thread);
}
