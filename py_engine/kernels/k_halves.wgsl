// A block of Q4_K and Q5_K is one part of 32 columns: both halves share their scale and minimum.
fn weight_16(row: u32, i: u32) -> mat4x4f {
  let at = (row * (BLOCKS / 8u) + (i >> 4u)) * K_BLOCK;
  let part = (i & 15u) >> 1u;
  let s = scale_and_minimum(weights[at], part);
  return s.x * codes_16(at, part, i & 1u) - filled(s.y);
}

fn weight_block(row: u32, block: u32) -> Block {
  let at = (row * (BLOCKS / 8u) + (block >> 3u)) * K_BLOCK;
  let part = block & 7u;
  let s = scale_and_minimum(weights[at], part);
  let p = s.x * codes_16(at, part, 0u) - filled(s.y);
  let q = s.x * codes_16(at, part, 1u) - filled(s.y);
  return Block(p[0], p[1], p[2], p[3], q[0], q[1], q[2], q[3]);
}
