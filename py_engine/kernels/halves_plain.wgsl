// A block out of two times 16 values.
fn weight_block(row: u32, block: u32) -> Block {
  let p = weight_16(row, block * 2u);
  let q = weight_16(row, block * 2u + 1u);
  return Block(p[0], p[1], p[2], p[3], q[0], q[1], q[2], q[3]);
}
