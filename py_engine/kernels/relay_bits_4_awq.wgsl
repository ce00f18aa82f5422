// Codes of 8 outputs a word, in AWQ's order: 0, 2, 4, 6, 1, 3, 5, 7.
fn packed_code(output: u32, word: u32) -> u32 {
  let i = output & 7u;
  return (word >> (((i >> 1u) + (i & 1u) * 4u) * 4u)) & 15u;
}
