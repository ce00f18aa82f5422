// A block of the columns' order out of two times 16 codes, which share a scale.
fn weight_block(row: u32, block: u32) -> Block {
  let p = codes_16(row, block * 2u);
  let q = codes_16(row, block * 2u + 1u);
  return Block(p[0], p[1], p[2], p[3], q[0], q[1], q[2], q[3]);
}

fn weight_scale(row: u32, block: u32) -> f32 { return scale_at(row * BLOCKS + block); }

fn arrange(x: Block) -> Block { return x; }

fn weight_16(row: u32, i: u32) -> mat4x4f { return weight_scale(row, i >> 1u) * codes_16(row, i); }
