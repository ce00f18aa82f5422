// Scales, to the lower half of a group's word.
fn write_pair(at: u32, has_second: bool, first: u32, second: u32) {
  atomicOr(&output[at], first);
  if (has_second) { atomicOr(&output[at + 1u], second); }
}
