// GGUF's Q4_K, a block of 256 columns: the head, then for every 64 columns 32 bytes with a nibble of
// either half. value = d * scale * code - dmin * minimum.
fn weight_16(row: u32, i: u32) -> mat4x4f {
  let at = (row * (BLOCKS / 8u) + (i >> 4u)) * 9u;
  let part = (i & 15u) >> 1u;
  let s = scale_and_minimum(weights[at], part);
  let words = weights[at + 1u + (part >> 1u) * 2u + (i & 1u)];
  return s.x * bytes_16(parts_16(words, (part & 1u) * 4u, 15u)) - filled(s.y);
}
