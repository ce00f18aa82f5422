// Keys, normed and rotated, and values of every token of a chunk into the cache.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let token = group.y;
  prepare_norms(token, thread);
  let unit = group.x * WORKGROUP + thread;
  let number = unit / HEAD8 % CACHE_HEADS;
  let i = unit % HEAD8;
  let position = position_of(token);
  let here = cached_at(slot_of(position), number);
  if (unit < CACHE_HEADS * HEAD8) {
    append_key(here, i, token, FIRST_CACHE_HEAD + number, position);
  } else if (unit < 2u * CACHE_HEADS * HEAD8) {
    append_value(here, i, token, FIRST_CACHE_HEAD + number);
  }
}
