fn weight_16(row: u32, i: u32) -> mat4x4f {
  let at = row * BLOCKS * 8u + i * 4u;
  return mat4x4f(weights[at], weights[at + 1u], weights[at + 2u], weights[at + 3u]);
}
