fn encoded(bits: u32) -> u32 { return bits; }
