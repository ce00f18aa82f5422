// MLC's q3f16_1: value = (code - 3) * scale, 10 codes in the lower 30 bits of a word, 40 columns a
// scale. Four columns that begin at a multiple of 4 share a scale and lie in one or two words.
const GROUPS = (COLUMNS + 39u) / 40u;

fn values_4(row: u32, column: u32) -> vec4f {
  let at = row * GROUPS * 4u + column / 10u;
  let shift = 3u * (column % 10u);
  let last = row * GROUPS * 4u + GROUPS * 4u - 1u;
  let bits = ((weights[at] & 0x3FFFFFFFu) >> shift) | (weights[min(at + 1u, last)] << (30u - shift));
  let codes = vec4u(bits, bits >> 3u, bits >> 6u, bits >> 9u) & vec4u(7u);
  return (vec4f(codes) - 3.0) * scale_at(row * GROUPS + column / 40u);
}

fn weight_16(row: u32, i: u32) -> mat4x4f {
  let column = i * 16u;
  return mat4x4f(values_4(row, column), values_4(row, column + 4u), values_4(row, column + 8u), values_4(row, column + 12u));
}
