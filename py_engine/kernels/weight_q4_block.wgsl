// A block of 4-bit codes, however these are unpacked.
fn block_of(words: vec4u, zero: f32) -> Block {
  return Block(even_codes(words.x, zero), odd_codes(words.x, zero), even_codes(words.y, zero), odd_codes(words.y, zero),
               even_codes(words.z, zero), odd_codes(words.z, zero), even_codes(words.w, zero), odd_codes(words.w, zero));
}

fn weight_block(row: u32, block: u32) -> Block {
  return block_of(weights[row * BLOCKS + block], weight_zero(row, block));
}
