fn low_half(pair: u32) -> f32 { return unpack2x16float(pair).x; }
fn high_half(pair: u32) -> f32 { return unpack2x16float(pair).y; }
