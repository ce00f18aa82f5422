// A block of Q4_0 has columns 0 to 15 in the low nibbles of its 16 bytes and the others in the high
// ones; here eight columns in their order make a word.
fn in_order(word: u32, shift: u32) -> u32 {
  let apart = (word >> shift) & 0x0F0F0F0Fu;
  let pairs = (apart | (apart >> 4u)) & 0x00FF00FFu;
  return (pairs | (pairs >> 8u)) & 0xFFFFu;
}

fn eight_of(low: u32, high: u32, shift: u32) -> u32 {
  return in_order(low, shift) | (in_order(high, shift) << 16u);
}
