fn score_of(product: f32) -> f32 { return product; }
