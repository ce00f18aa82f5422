// What a token leaves in the cache at a head's row, eight by eight: its key, normed and rotated, and its value.
// A constant says that it is a key: compilers divide by constants in other ways.
fn append_key(row: u32, i: u32, token: u32, kv_head: u32, position: u32) {
  let head = head_of(token, kv_head, false);
  let key = turned(head, i, position, head_statistics(head));
  keep_k(row, low_of(i), key.low);
  keep_k(row, high_of(i), key.high);
}

fn append_value(row: u32, i: u32, token: u32, kv_head: u32) {
  let at = value_at(token, kv_head) + 2u * i;
  keep_v(row, 2u * i, qkv[at]);
  keep_v(row, 2u * i + 1u, qkv[at + 1u]);
}
