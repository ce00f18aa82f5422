// GGUF's Q2_K, a block of 256 columns: for every 16 a byte of 4-bit scale and 4-bit minimum, 64
// bytes of 2-bit codes, d and dmin. value = d * scale * code - dmin * minimum.
fn weight_16(row: u32, i: u32) -> mat4x4f {
  let at = (row * (BLOCKS / 8u) + (i >> 4u)) * 21u;
  let part = i & 15u;
  let scales = weights[at + (part >> 2u)] >> ((part & 3u) * 8u);
  let d_dmin = unpack2x16float(weights[at + 20u]);
  let first = at + 4u + (part >> 3u) * 8u + (part & 1u) * 4u;
  let words = vec4u(weights[first], weights[first + 1u], weights[first + 2u], weights[first + 3u]);
  let codes = bytes_16(parts_16(words, ((part >> 1u) & 3u) * 2u, 3u));
  return d_dmin.x * f32(scales & 15u) * codes - filled(d_dmin.y * f32((scales >> 4u) & 15u));
}
