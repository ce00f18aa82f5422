// GGUF's Q5_K, a block of 256 columns: the head, 32 bytes of fifth bits, then nibbles as in Q4_K.
fn weight_16(row: u32, i: u32) -> mat4x4f {
  let at = (row * (BLOCKS / 8u) + (i >> 4u)) * 11u;
  let part = (i & 15u) >> 1u;
  let s = scale_and_minimum(weights[at], part);
  let low = parts_16(weights[at + 3u + (part >> 1u) * 2u + (i & 1u)], (part & 1u) * 4u, 15u);
  let high = parts_16(weights[at + 1u + (i & 1u)], part, 1u);
  return s.x * bytes_16(low | (high << vec4u(4u))) - filled(s.y);
}
