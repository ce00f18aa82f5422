// GGUF's Q5_K, a block of 256 columns: the head, 32 bytes of fifth bits, then nibbles as in Q4_K.
const K_BLOCK = 11u;

fn codes_16(at: u32, part: u32, half: u32) -> mat4x4f {
  let low = parts_16(weights[at + 3u + (part >> 1u) * 2u + half], (part & 1u) * 4u, 15u);
  let high = parts_16(weights[at + 1u + half], part, 1u);
  return bytes_16(low | (high << vec4u(4u)));
}
