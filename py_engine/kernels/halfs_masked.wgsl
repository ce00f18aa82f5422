// As unpack2x16float, which takes adapters on the CPU some 36 operations: a half's exponent and mantissa, at
// their places in an f32, make what is too small by 2^112. They multiply sooner than they shift. The
// smallest halfs, below 2^-14, may become 0, and infinite ones finite.
fn half_of(magnitude: u32, sign: u32) -> f32 { return bitcast<f32>(magnitude | sign) * 0x1p112f; }
fn low_half(pair: u32) -> f32 { return half_of((pair & 0x7FFFu) * 0x2000u, (pair & 0x8000u) * 0x10000u); }
fn high_half(pair: u32) -> f32 { return half_of((pair & 0x7FFF0000u) >> 3u, pair & 0x80000000u); }
