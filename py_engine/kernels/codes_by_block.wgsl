// Codes that several tokens take, unpacked once; products are to the bits of codes_by_word.
struct Weights { codes: Block, zero: f32 }

fn weights_of(words: vec4u, zero: f32) -> Weights {
  return Weights(Block(even_codes(words.x, 0.0), odd_codes(words.x, 0.0), even_codes(words.y, 0.0), odd_codes(words.y, 0.0),
                       even_codes(words.z, 0.0), odd_codes(words.z, 0.0), even_codes(words.w, 0.0), odd_codes(words.w, 0.0)),
                 zero);
}

fn product(w: Weights, x: Operand) -> f32 { return dot_blocks(w.codes, x.v) - w.zero * x.sum; }
