fn encoded(bits: u32) -> u32 {
  let rounded = half_from(bits);
  report_overflow(rounded, bits);
  return rounded;
}
