fn unpack_16bit(v: vec2u) -> vec4f { return bitcast<vec4f>(vec4u(v.x << 16u, v.x & 0xFFFF0000u, v.y << 16u, v.y & 0xFFFF0000u)); }
