// GGUF's blocks as in the file, BLOCK_BYTES each at any even byte, into whole words: a block a thread.
// Its first HEAD_BYTES, an f16 scale, go to `scales`.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let blocks = piece[PIECE_COLUMNS] / BLOCK_COLUMNS;
  let unit = unit_of(group, thread);
  let row = unit / blocks;
  if (row >= piece[PIECE_ROWS]) { return; }
  let to = target_row(row);
  if (!is_kept(to)) { return; }
  let block = to * blocks + unit % blocks;
  let at = unit * BLOCK_BYTES;
  store_scale(block, (source[at >> 2u] >> ((at & 2u) * 8u)) & 0xFFFFu);
  // A word of the block may lie in two of the source: the second is the next one's first.
  let first = (at + HEAD_BYTES) >> 2u;
  let is_split = ((at + HEAD_BYTES) & 2u) > 0u;
  var low = source[first];
  for (var i = 0u; i < BLOCK_WORDS; i++) {
    let high = source[first + i + 1u];
    var word = select(low, (low >> 16u) | (high << 16u), is_split);
    if (i == BLOCK_WORDS - 1u) { word &= LAST_MASK; }
    store_word(block, i, word);
    low = high;
  }
}
