fn filtered(distance: f32) -> f32 { return max(0.0, 1.0 - abs(distance)); }
