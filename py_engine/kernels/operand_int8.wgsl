// x in 8 bits with a scale for each block, and 4-bit codes in bytes, for integer dot products. The codes' zero
// comes off as zero times the sum of x: all of it is exact but for x's rounding.
struct Operand { low: vec4u, high: vec4u, scale: f32, sum: f32 }
struct Weights { low: vec4u, high: vec4u, zero: f32 }

fn rounded4(v: vec4f) -> u32 { return pack4xI8(vec4i(round(v))); }

fn dot_bytes(low: vec4u, high: vec4u, x_low: vec4u, x_high: vec4u) -> i32 {
  return dot4I8Packed(low.x, x_low.x) + dot4I8Packed(low.y, x_low.y)
       + dot4I8Packed(low.z, x_low.z) + dot4I8Packed(low.w, x_low.w)
       + dot4I8Packed(high.x, x_high.x) + dot4I8Packed(high.y, x_high.y)
       + dot4I8Packed(high.z, x_high.z) + dot4I8Packed(high.w, x_high.w);
}

fn operand(x: Block) -> Operand {
  let v = arrange(x);
  let largest = largest_of(v);
  // Where all is smaller, 127 over it might overflow.
  let f = 127.0 / max(largest, 1e-30);
  let low = vec4u(rounded4(f * v.a), rounded4(f * v.b), rounded4(f * v.c), rounded4(f * v.d));
  let high = vec4u(rounded4(f * v.e), rounded4(f * v.f), rounded4(f * v.g), rounded4(f * v.h));
  let ones = vec4u(0x01010101u);
  return Operand(low, high, largest / 127.0, f32(dot_bytes(ones, ones, low, high)));
}

fn weights_of(words: vec4u, zero: f32) -> Weights {
  let even = words & vec4u(0x0F0F0F0Fu);
  let odd = (words >> vec4u(4u)) & vec4u(0x0F0F0F0Fu);
  return Weights(vec4u(even.x, odd.x, even.y, odd.y), vec4u(even.z, odd.z, even.w, odd.w), zero);
}

fn product(w: Weights, x: Operand) -> f32 {
  return x.scale * (f32(dot_bytes(w.low, w.high, x.low, x.high)) - w.zero * x.sum);
}
