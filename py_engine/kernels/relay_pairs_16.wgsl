// Where rows have an odd number of columns, two of them share a word.
fn write_pair(at: u32, has_second: bool, first: u32, second: u32) {
  if ((at & 1u) == 0u && has_second) {
    atomicStore(&output[at >> 1u], first | (second << 16u));
    return;
  }
  atomicOr(&output[at >> 1u], first << ((at & 1u) * 16u));
  if (has_second) { atomicOr(&output[(at + 1u) >> 1u], second << (((at + 1u) & 1u) * 16u)); }
}
