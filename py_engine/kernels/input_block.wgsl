fn input_block(token: u32, block: u32) -> Block {
  let i = token * INPUT_STRIDE + block * 8u;
  return Block(x[i], x[i + 1u], x[i + 2u], x[i + 3u], x[i + 4u], x[i + 5u], x[i + 6u], x[i + 7u]);
}
