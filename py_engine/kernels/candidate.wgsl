struct Candidate { value: f32, token: u32 }
