// 32 consecutive values of a row, in the order in which the weight format unpacks them.
struct Block {
  a: vec4f, b: vec4f, c: vec4f, d: vec4f, e: vec4f, f: vec4f, g: vec4f, h: vec4f,
}

fn dot_blocks(x: Block, y: Block) -> f32 {
  return dot(x.a, y.a) + dot(x.b, y.b) + dot(x.c, y.c) + dot(x.d, y.d)
       + dot(x.e, y.e) + dot(x.f, y.f) + dot(x.g, y.g) + dot(x.h, y.h);
}

fn multiply_blocks(x: Block, y: Block) -> Block {
  return Block(x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d, x.e * y.e, x.f * y.f, x.g * y.g, x.h * y.h);
}

// The largest magnitude.
fn largest_of(x: Block) -> f32 {
  let v = max(max(max(abs(x.a), abs(x.b)), max(abs(x.c), abs(x.d))),
              max(max(abs(x.e), abs(x.f)), max(abs(x.g), abs(x.h))));
  return max(max(v.x, v.y), max(v.z, v.w));
}
