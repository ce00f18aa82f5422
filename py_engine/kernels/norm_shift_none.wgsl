fn norm_shift(i: u32) -> vec4f { return vec4f(0.0); }
