// x in f32, in the order in which 4-bit codes unpack. Their zero comes off as zero times the sum of x.
struct Operand { v: Block, sum: f32 }
struct Weights { words: vec4u, zero: f32 }

fn block_sum(x: Block) -> f32 { return dot(x.a + x.b + x.c + x.d + x.e + x.f + x.g + x.h, vec4f(1.0)); }
fn operand(x: Block) -> Operand { return Operand(arrange(x), block_sum(x)); }

fn weights_of(words: vec4u, zero: f32) -> Weights { return Weights(words, zero); }
fn weights_at(row: u32, block: u32) -> Weights { return weights_of(weights[row * BLOCKS + block], weight_zero(row, block)); }

// A word after the other, so that few codes are unpacked at once.
fn product(w: Weights, x: Operand) -> f32 {
  let words = w.words;
  let v = x.v;
  return dot(even_codes(words.x, 0.0), v.a) + dot(odd_codes(words.x, 0.0), v.b)
       + dot(even_codes(words.y, 0.0), v.c) + dot(odd_codes(words.y, 0.0), v.d)
       + dot(even_codes(words.z, 0.0), v.e) + dot(odd_codes(words.z, 0.0), v.f)
       + dot(even_codes(words.w, 0.0), v.g) + dot(odd_codes(words.w, 0.0), v.h) - w.zero * x.sum;
}
