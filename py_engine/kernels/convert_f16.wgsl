fn to_f32(pair: u32) -> vec2f { return unpack2x16float(pair); }
