// GGUF's Q5_1: value = code * d + m; d and m, a word of fifth bits, then nibbles as in Q4_0.
fn weight_16(row: u32, i: u32) -> mat4x4f {
  let at = (row * BLOCKS + (i >> 1u)) * 6u;
  let d_m = unpack2x16float(weights[at]);
  let words = vec4u(weights[at + 2u], weights[at + 3u], weights[at + 4u], weights[at + 5u]);
  let low = parts_16(words, (i & 1u) * 4u, 15u);
  let high = spread_16(weights[at + 1u] >> ((i & 1u) * 16u));
  return d_m.x * bytes_16(low | (high << vec4u(4u))) + filled(d_m.y);
}
