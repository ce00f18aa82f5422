fn source_bits(i: u32) -> u32 { return (source[i >> 1u] >> ((i & 1u) * 16u)) & 0xFFFFu; }
