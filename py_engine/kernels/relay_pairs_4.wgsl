fn write_pair(at: u32, has_second: bool, first: u32, second: u32) {
  atomicOr(&output[at >> 3u], (first | (second << 4u)) << ((at & 7u) * 4u));
}
