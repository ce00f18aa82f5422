// GGUF's Q6_K, a block of 256 columns: 128 bytes of low nibbles, 64 of upper two bits, 16 signed
// scales, one for every 16 columns, and d. value = d * scale * (code - 32).
fn words_4(at: u32) -> vec4u { return vec4u(weights[at], weights[at + 1u], weights[at + 2u], weights[at + 3u]); }

fn weight_16(row: u32, i: u32) -> mat4x4f {
  let at = (row * (BLOCKS / 8u) + (i >> 4u)) * 53u;
  let part = i & 15u;
  let half = part >> 3u;
  let group = (part >> 1u) & 3u;
  let low = parts_16(words_4(at + half * 16u + (group & 1u) * 8u + (part & 1u) * 4u), (group >> 1u) * 4u, 15u);
  let high = parts_16(words_4(at + 32u + half * 8u + (part & 1u) * 4u), group * 2u, 3u);
  let scale = f32(unpack4xI8(weights[at + 48u + (part >> 2u)])[part & 3u]);
  let codes = bytes_16(low | (high << vec4u(4u))) - filled(32.0);
  return unpack2x16float(weights[at + 52u]).x * scale * codes;
}
