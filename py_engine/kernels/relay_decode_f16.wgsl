fn decoded(bits: u32) -> u32 { return bitcast<u32>(unpack2x16float(bits).x); }
