// LayerNorm folded into the product. Mean and deviation come first, because a difference of sums
// over the weights would cancel; x is short beside the four rows of weights.
fn read4(token: u32, i: u32) -> vec4f { return x[token * INPUT_STRIDE + i]; }
fn input_statistics(token: u32, thread: u32, stride: u32) -> vec2f { return row_statistics(token, thread, stride); }
fn square_sum(x: Block) -> f32 { return 0.0; }

fn normed4(v: vec4f, i: u32, statistics: vec2f) -> vec4f {
  return (v - statistics.x) * statistics.y * norm[i] + norm_shift(i);
}

fn normed(x: Block, block: u32, statistics: vec2f) -> Block {
  let i = block * 8u;
  return Block(normed4(x.a, i, statistics), normed4(x.b, i + 1u, statistics),
               normed4(x.c, i + 2u, statistics), normed4(x.d, i + 3u, statistics),
               normed4(x.e, i + 4u, statistics), normed4(x.f, i + 5u, statistics),
               normed4(x.g, i + 6u, statistics), normed4(x.h, i + 7u, statistics));
}

fn inverse_rms(square_sum: f32) -> f32 { return 1.0; }
