// AWQ and GPTQ: for every GROUP columns a word with an f16 scale and a zero.
fn scale_and_zero(row: u32, block: u32) -> u32 { return scales[row * (COLUMNS / GROUP) + block / (GROUP / 32u)]; }
fn weight_scale(row: u32, block: u32) -> f32 { return unpack2x16float(scale_and_zero(row, block)).x; }
fn weight_zero(row: u32, block: u32) -> f32 { return f32(scale_and_zero(row, block) >> 16u); }
