fn inverse_head_rms(first: u32) -> f32 { return 1.0; }
fn normed_head(x: vec4f, i: u32, inverse_rms: f32, is_query: bool) -> vec4f { return x; }
