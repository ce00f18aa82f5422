// RMSNorm folded into the product: sum(w g x) is scaled by 1/rms(x) at the end, so x is read once.
fn square_sum(x: Block) -> f32 { return dot_blocks(x, x); }

fn normed(x: Block, block: u32, statistics: vec2f) -> Block {
  let i = block * 8u;
  return multiply_blocks(x, Block(norm[i], norm[i + 1u], norm[i + 2u], norm[i + 3u],
                                  norm[i + 4u], norm[i + 5u], norm[i + 6u], norm[i + 7u]));
}

fn inverse_rms(square_sum: f32) -> f32 { return inverseSqrt(square_sum / f32(COLUMNS) + EPSILON); }
