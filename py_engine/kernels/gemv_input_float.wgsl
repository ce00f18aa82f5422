// What a team reads of x in f32. The codes' zero comes off as zero times the sum of x.
struct Input { v: Operand, sum: f32, squares: f32 }

fn block_sum(v: Operand) -> f32 { return dot(v.a + v.b + v.c + v.d + v.e + v.f + v.g + v.h, vec4f(1.0)); }

fn code_dot(w: vec4u, v: Operand) -> f32 {
  return dot_blocks(Block(even_codes(w.x, 0.0), odd_codes(w.x, 0.0), even_codes(w.y, 0.0), odd_codes(w.y, 0.0),
                          even_codes(w.z, 0.0), odd_codes(w.z, 0.0), even_codes(w.w, 0.0), odd_codes(w.w, 0.0)), v);
}

fn input_product(words: vec4u, zero: f32, x: Input) -> f32 { return code_dot(words, x.v) - zero * x.sum; }
