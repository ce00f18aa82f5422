fn source_bits(i: u32) -> u32 { return source[i]; }
