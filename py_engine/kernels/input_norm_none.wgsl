fn square_sum(x: Block) -> f32 { return 0.0; }
fn normed(x: Block, block: u32, statistics: vec2f) -> Block { return x; }
fn inverse_rms(square_sum: f32) -> f32 { return 1.0; }
