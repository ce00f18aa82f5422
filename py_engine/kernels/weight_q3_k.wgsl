// GGUF's Q3_K, a block of 256 columns: 32 bytes of third bits, 64 of 2-bit codes, 12 of 6-bit
// scales, one for every 16 columns, and d. value = d * (scale - 32) * (code - 4).
fn weight_16(row: u32, i: u32) -> mat4x4f {
  let at = (row * (BLOCKS / 8u) + (i >> 4u)) * 7u;
  let part = i & 15u;
  let tail = weights[at + 6u];
  let low_scale = (tail[(part >> 2u) & 1u] >> ((part & 3u) * 8u + (part >> 3u) * 4u)) & 15u;
  let high_scale = (tail.z >> ((part & 3u) * 8u + (part >> 2u) * 2u)) & 3u;
  let scale = f32(low_scale | (high_scale << 4u)) - 32.0;
  let low = parts_16(weights[at + 2u + (part >> 3u) * 2u + (part & 1u)], ((part >> 1u) & 3u) * 2u, 3u);
  let high = parts_16(weights[at + (part & 1u)], part >> 1u, 1u);
  let codes = bytes_16(low | (high << vec4u(2u))) - filled(4.0);
  return unpack2x16float(tail.w).x * scale * codes;
}
