fn weight_scale(row: u32, block: u32) -> f32 { return scales[row * BLOCKS + block]; }
