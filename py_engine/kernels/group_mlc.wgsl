// MLC's q4f16_1 and q4f32_1: 32 columns a scale, the zero in the middle.
fn weight_scale(row: u32, block: u32) -> f32 { return scale_at(row * BLOCKS + block); }
fn weight_zero(row: u32, block: u32) -> f32 { return 7.0; }
