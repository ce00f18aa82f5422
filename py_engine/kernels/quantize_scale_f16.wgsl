// Returns the scale as stored, an f16 that shares its word with the next or previous group's.
fn store_scale(group: u32, bits: u32, largest: u32) -> f32 {
  let half = half_from(bits);
  report_overflow(half, largest);
  atomicOr(&scales[group >> 1u], half << ((group & 1u) * 16u));
  return half_value(half);
}
