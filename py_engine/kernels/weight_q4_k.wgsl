// GGUF's Q4_K, a block of 256 columns: the head, then for every 64 columns 32 bytes with a nibble of
// either half. value = d * scale * code - dmin * minimum.
const K_BLOCK = 9u;

fn codes_16(at: u32, part: u32, half: u32) -> mat4x4f {
  return bytes_16(parts_16(weights[at + 1u + (part >> 1u) * 2u + half], (part & 1u) * 4u, 15u));
}
