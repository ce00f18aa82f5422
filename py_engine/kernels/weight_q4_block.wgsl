// A block of 4-bit codes, however these are unpacked.
fn weight_block(row: u32, block: u32) -> Block {
  let words = weights[row * BLOCKS + block];
  let zero = weight_zero(row, block);
  return Block(even_codes(words.x, zero), odd_codes(words.x, zero), even_codes(words.y, zero), odd_codes(words.y, zero),
               even_codes(words.z, zero), odd_codes(words.z, zero), even_codes(words.w, zero), odd_codes(words.w, zero));
}
