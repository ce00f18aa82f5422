fn to_f32(pair: u32) -> vec2f { return bitcast<vec2f>(vec2u(pair << 16u, pair & 0xFFFF0000u)); }
