fn store_scale(block: u32, half: u32) {}
