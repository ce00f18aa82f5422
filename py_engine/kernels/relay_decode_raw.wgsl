fn decoded(bits: u32) -> u32 { return bits; }
