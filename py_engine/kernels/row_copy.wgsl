fn read4(token: u32, i: u32) -> vec4f { return x[token * ROW4 + FIRST4 + i]; }
fn write4(token: u32, i: u32, value: vec4f) { output[token * ROW4 + FIRST4 + i] = value; }
