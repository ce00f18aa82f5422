// Zeros, to the upper half of a group's word.
fn write_pair(at: u32, has_second: bool, first: u32, second: u32) {
  atomicOr(&output[at], (first + ADDED) << 16u);
  if (has_second) { atomicOr(&output[at + 1u], (second + ADDED) << 16u); }
}
