// Two blocks of Q4_0 a thread, 36 bytes: nine whole words with two scales among them, which share a
// word. Written out word by word: adapters on the CPU take 0.4 of the time of `pack_blocks`.
fn store_block(at: u32, a: u32, b: u32, c: u32, d: u32) {
  weights[at] = eight_of(a, b, 0u);
  weights[at + 1u] = eight_of(c, d, 0u);
  weights[at + 2u] = eight_of(a, b, 4u);
  weights[at + 3u] = eight_of(c, d, 4u);
}

fn joined(low: u32, high: u32) -> u32 { return (low >> 16u) | (high << 16u); }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let pairs = piece[PIECE_COLUMNS] / PER_UNIT;
  let unit = unit_of(group, thread);
  let row = unit / pairs;
  if (row >= piece[PIECE_ROWS]) { return; }
  let to = target_row(row);
  if (!is_kept(to)) { return; }
  let pair = to * pairs + unit % pairs;
  let at = unit * 9u;
  let first = source[at];
  let a = source[at + 1u];
  let b = source[at + 2u];
  let c = source[at + 3u];
  let middle = source[at + 4u];
  scales[pair] = (first & 0xFFFFu) | (middle & 0xFFFF0000u);
  store_block(8u * pair, joined(first, a), joined(a, b), joined(b, c), joined(c, middle));
  store_block(8u * pair + 4u, source[at + 5u], source[at + 6u], source[at + 7u], source[at + 8u]);
}
