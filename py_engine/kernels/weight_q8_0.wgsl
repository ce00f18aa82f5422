// GGUF's Q8_0: value = code * d, codes of a signed byte.
fn codes_16(row: u32, i: u32) -> mat4x4f {
  let words = weights[row * BLOCKS * 2u + i];
  return mat4x4f(vec4f(unpack4xI8(words.x)), vec4f(unpack4xI8(words.y)),
                 vec4f(unpack4xI8(words.z)), vec4f(unpack4xI8(words.w)));
}
