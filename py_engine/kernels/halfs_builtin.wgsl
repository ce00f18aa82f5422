fn unpack_pair(pair: u32) -> vec2f { return unpack2x16float(pair); }
