// A block of Q4_0 has columns 0 to 15 in the low nibbles of its 16 bytes and the others in the high
// ones; here eight columns in their order make a word.
fn in_order(word: u32, shift: u32) -> u32 {
  let apart = (word >> shift) & 0x0F0F0F0Fu;
  let pairs = (apart | (apart >> 4u)) & 0x00FF00FFu;
  return (pairs | (pairs >> 8u)) & 0xFFFFu;
}

fn store_word(block: u32, i: u32, word: u32) {
  let half = 16u * (i & 1u);
  let at = block * BLOCK_WORDS + (i >> 1u);
  let low = in_order(word, 0u) << half;
  let high = in_order(word, 4u) << half;
  // A thread writes the two halves of its words one after the other.
  weights[at] = select(weights[at], 0u, half == 0u) | low;
  weights[at + 2u] = select(weights[at + 2u], 0u, half == 0u) | high;
}
