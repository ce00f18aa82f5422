fn row_value(row: u32, y: f32) -> f32 { return y + bias[row]; }
