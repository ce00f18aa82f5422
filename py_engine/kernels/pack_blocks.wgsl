// GGUF's blocks as in the file, BLOCK_BYTES each at any byte, into whole words: a block a thread.
// Where SPLIT, its first two bytes, an f16 scale, go to `scales`.
fn bytes_at(at: u32) -> u32 {
  let shift = (at & 3u) * 8u;
  let low = source[at >> 2u] >> shift;
  if (shift == 0u) { return low; }
  return low | (source[(at >> 2u) + 1u] << (32u - shift));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let blocks = piece[PIECE_COLUMNS] / BLOCK_COLUMNS;
  let unit = group.y * WORKGROUP + thread;
  let row = unit / blocks;
  if (row >= piece[PIECE_ROWS]) { return; }
  let to = target_row(row);
  if (!is_kept(to)) { return; }
  let block = to * blocks + unit % blocks;
  let at = unit * BLOCK_BYTES;
  store_scale(block, at);
  for (var i = 0u; i < BLOCK_WORDS; i++) {
    var word = bytes_at(at + HEAD_BYTES + i * 4u);
    if (i == BLOCK_WORDS - 1u) { word &= LAST_MASK; }
    weights[block * BLOCK_WORDS + i] = word;
  }
}
