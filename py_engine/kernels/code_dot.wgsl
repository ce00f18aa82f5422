fn block_sum(x: Block) -> f32 { return dot(x.a + x.b + x.c + x.d + x.e + x.f + x.g + x.h, vec4f(1.0)); }

// A block's codes times x, a word after the other: few are unpacked at once.
fn code_dot(w: vec4u, x: Block) -> f32 {
  return dot(even_codes(w.x, 0.0), x.a) + dot(odd_codes(w.x, 0.0), x.b)
       + dot(even_codes(w.y, 0.0), x.c) + dot(odd_codes(w.y, 0.0), x.d)
       + dot(even_codes(w.z, 0.0), x.e) + dot(odd_codes(w.z, 0.0), x.f)
       + dot(even_codes(w.w, 0.0), x.g) + dot(odd_codes(w.w, 0.0), x.h);
}
