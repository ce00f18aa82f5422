// GGUF's Q4_0, whose codes are put in order while they load: 32 columns a scale, the zero at 8.
fn weight_scale(row: u32, block: u32) -> f32 { return scale_at(row * BLOCKS + block); }
fn weight_zero(row: u32, block: u32) -> f32 { return 8.0; }
