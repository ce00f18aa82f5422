// f16 as 16 bits, rounded to nearest with ties to even whatever the GPU's own rounding, and back.
fn half_from(bits: u32) -> u32 {
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7FFFFFFFu;
  if (magnitude >= 0x477FF000u) { return sign | select(0x7C00u, 0x7E00u, magnitude > 0x7F800000u); }
  if (magnitude >= 0x38800000u) {
    return sign | ((magnitude + 0xFFFu + ((magnitude >> 13u) & 1u) - 0x38000000u) >> 13u);
  }
  let exponent = magnitude >> 23u;
  if (exponent < 102u) { return sign; }
  let mantissa = (magnitude & 0x7FFFFFu) | 0x800000u;
  return sign | shifted_to_even(mantissa, 126u - exponent, false);
}

// value >> shift, rounded to nearest with ties to even; `sticky` tells that value was cut off.
fn shifted_to_even(value: u32, shift: u32, sticky: bool) -> u32 {
  let kept = value >> shift;
  let rest = value & ((1u << shift) - 1u);
  let middle = 1u << (shift - 1u);
  return kept + select(0u, 1u, rest > middle || (rest == middle && (sticky || (kept & 1u) == 1u)));
}

fn half_value(bits: u32) -> f32 {
  if ((bits & 0x7C00u) == 0u) { return f32(bits & 0x3FFu) * 5.9604644775390625e-8; }
  return bitcast<f32>((bits << 13u) + 0x38000000u);
}

// Keeps the largest weight that f16 cannot hold, as the bits of its magnitude.
fn report_overflow(half: u32, bits: u32) {
  if ((half & 0x7C00u) == 0x7C00u) { atomicMax(&report[0], bits & 0x7FFFFFFFu); }
}
