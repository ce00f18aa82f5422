// 16 bytes as values in their order, and their parts: a nibble or less of each, shifted down.
fn bytes_16(words: vec4u) -> mat4x4f {
  return mat4x4f(vec4f(unpack4xU8(words.x)), vec4f(unpack4xU8(words.y)),
                 vec4f(unpack4xU8(words.z)), vec4f(unpack4xU8(words.w)));
}

fn parts_16(words: vec4u, shift: u32, mask: u32) -> vec4u { return (words >> vec4u(shift)) & vec4u(mask * 0x01010101u); }

fn filled(value: f32) -> mat4x4f { return mat4x4f(vec4f(value), vec4f(value), vec4f(value), vec4f(value)); }

// Bits 0 to 15 as the lowest bit of 16 bytes.
fn spread_16(bits: u32) -> vec4u {
  let nibbles = vec4u(bits, bits >> 4u, bits >> 8u, bits >> 12u) & vec4u(15u);
  return (nibbles * 0x00204081u) & vec4u(0x01010101u);
}
