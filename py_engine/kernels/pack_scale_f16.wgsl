fn store_scale(block: u32, at: u32) { atomicOr(&scales[block >> 1u], (bytes_at(at) & 0xFFFFu) << ((block & 1u) * 16u)); }
