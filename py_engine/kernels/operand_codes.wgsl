// x in f32, in the order in which 4-bit codes unpack. Their zero comes off as zero times the sum of x.
struct Operand { v: Block, sum: f32 }
struct Weights { words: vec4u, zero: f32 }

fn operand(x: Block) -> Operand { return Operand(arrange(x), block_sum(x)); }

fn weights_at(row: u32, block: u32) -> Weights {
  return Weights(weights[row * BLOCKS + block], weight_zero(row, block));
}

fn product(w: Weights, x: Operand) -> f32 { return code_dot(w.words, x.v) - w.zero * x.sum; }
