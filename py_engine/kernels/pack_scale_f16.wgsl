fn store_scale(block: u32, half: u32) { atomicOr(&scales[block >> 1u], half << ((block & 1u) * 16u)); }
