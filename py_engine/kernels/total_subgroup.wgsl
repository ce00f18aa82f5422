fn total(value: f32, thread: u32) -> f32 { return subgroupAdd(value); }
