// Codes that several tokens take, unpacked once.
struct Weights { codes: Block, zero: f32 }
fn weights_of(words: vec4u, zero: f32) -> Weights { return Weights(block_of(words, 0.0), zero); }
fn product(w: Weights, x: Operand) -> f32 { return dot_blocks(w.codes, x.v) - w.zero * x.sum; }
