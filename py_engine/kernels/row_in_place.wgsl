// A thread reads and writes only its own columns of a row.
fn read4(token: u32, i: u32) -> vec4f { return x[token * (ROW_STRIDE / 4u) + i]; }
fn write4(token: u32, i: u32, value: vec4f) { x[token * (ROW_STRIDE / 4u) + i] = value; }
