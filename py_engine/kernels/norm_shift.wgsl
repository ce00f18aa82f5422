fn norm_shift(i: u32) -> vec4f { return norm_bias[i]; }
