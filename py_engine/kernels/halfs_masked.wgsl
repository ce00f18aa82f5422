// As unpack2x16float, which takes adapters on the CPU some 36 operations: a half's exponent and mantissa, at
// their places in an f32, make what is too small by 2^112. Those adapters shift lane by lane, so bits are
// moved by multiplying, and down by adding 2^39, whose last bit is worth 2^16. The smallest halfs, below
// 2^-14, may become 0, and infinite ones finite.
fn half_of(magnitude: u32, sign: u32) -> f32 { return bitcast<f32>((magnitude * 0x2000u) | sign) * 0x1p112f; }

fn unpack_pair(pair: u32) -> vec2f {
  let high = bitcast<u32>(f32(i32(pair & 0x7FFF0000u)) + 0x1p39f);
  return vec2f(half_of(pair & 0x7FFFu, (pair & 0x8000u) * 0x10000u), half_of(high, pair & 0x80000000u));
}
