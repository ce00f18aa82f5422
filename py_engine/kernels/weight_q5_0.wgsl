// GGUF's Q5_0: value = (code - 16) * d; a word of fifth bits, then nibbles as in Q4_0.
fn codes_16(row: u32, i: u32) -> mat4x4f {
  let at = (row * BLOCKS + (i >> 1u)) * 5u;
  let words = vec4u(weights[at + 1u], weights[at + 2u], weights[at + 3u], weights[at + 4u]);
  let low = parts_16(words, (i & 1u) * 4u, 15u);
  let high = spread_16(weights[at] >> ((i & 1u) * 16u));
  return bytes_16(low | (high << vec4u(4u))) - filled(16.0);
}
