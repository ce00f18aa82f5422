// Returns the scale as stored: MLC's files hold it as bf16.
fn store_scale(group: u32, bits: u32, largest: u32) -> f32 {
  let rounded = (bits + 0x7FFFu + ((bits >> 16u) & 1u)) & 0xFFFF0000u;
  if (largest >= 0x7F800000u) { atomicMax(&report[0], largest); }
  scales[group] = rounded;
  return bitcast<f32>(rounded);
}
