fn scale_at(i: u32) -> f32 { return scales[i]; }
