// GGUF's Q4_0: value = (code - 8) * d; the first 16 columns are the low nibbles of 16 bytes.
fn codes_16(row: u32, i: u32) -> mat4x4f {
  let words = weights[row * BLOCKS + (i >> 1u)];
  return bytes_16(parts_16(words, (i & 1u) * 4u, 15u)) - filled(8.0);
}
