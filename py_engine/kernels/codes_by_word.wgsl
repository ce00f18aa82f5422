// Codes that one token takes, unpacked a word after the other, so that few are there at once; to the bits of
// codes_by_block.
struct Weights { words: vec4u, zero: f32 }
fn weights_of(words: vec4u, zero: f32) -> Weights { return Weights(words, zero); }

fn product(w: Weights, x: Operand) -> f32 {
  let words = w.words;
  let v = x.v;
  return dot(even_codes(words.x, 0.0), v.a) + dot(odd_codes(words.x, 0.0), v.b)
       + dot(even_codes(words.y, 0.0), v.c) + dot(odd_codes(words.y, 0.0), v.d)
       + dot(even_codes(words.z, 0.0), v.e) + dot(odd_codes(words.z, 0.0), v.f)
       + dot(even_codes(words.w, 0.0), v.g) + dot(odd_codes(words.w, 0.0), v.h) - w.zero * x.sum;
}
