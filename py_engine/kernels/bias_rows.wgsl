fn biased(row: u32, y: f32) -> f32 { return y + bias[row]; }
