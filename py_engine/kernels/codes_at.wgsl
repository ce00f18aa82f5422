fn weights_at(row: u32, block: u32) -> Weights { return weights_of(weights[row * BLOCKS + block], weight_zero(row, block)); }
