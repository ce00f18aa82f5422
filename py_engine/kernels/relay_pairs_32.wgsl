fn write_pair(at: u32, has_second: bool, first: u32, second: u32) {
  output[at] = first;
  if (has_second) { output[at + 1u] = second; }
}
