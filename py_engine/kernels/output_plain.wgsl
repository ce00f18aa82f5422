fn output_of(x: vec4f, token: u32, head: u32, i: u32) -> vec4f { return x; }
