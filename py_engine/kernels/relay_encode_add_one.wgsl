fn encoded(bits: u32) -> u32 { return bitcast<u32>(bitcast<f32>(bits) + 1.0); }
