struct Sampling { temperature: f32, top_p: f32, seed_low: u32, seed_high: u32 }
