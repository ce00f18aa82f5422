fn store_scale(block: u32, at: u32) {}
