// GGUF's Q4_1: value = code * d + m; d and m, then nibbles as in Q4_0.
fn weight_16(row: u32, i: u32) -> mat4x4f {
  let at = (row * BLOCKS + (i >> 1u)) * 5u;
  let d_m = unpack2x16float(weights[at]);
  let words = vec4u(weights[at + 1u], weights[at + 2u], weights[at + 3u], weights[at + 4u]);
  return d_m.x * bytes_16(parts_16(words, (i & 1u) * 4u, 15u)) + filled(d_m.y);
}
