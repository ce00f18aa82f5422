// The rows of QUADS_EACH quads for BATCH tokens: each weight is unpacked once for all of them. A token's
// sums are the same to the last bit as in a product of it alone, where threads share blocks out alike.
const ROWS_EACH = 4u * QUADS_EACH;

struct BatchSums { y: array<f32, ROWS_EACH * BATCH>, squares: array<f32, BATCH> }

fn accumulate(first_quad: u32, first: u32, stride: u32) -> BatchSums {
  var rows: array<u32, ROWS_EACH>;
  for (var q = 0u; q < QUADS_EACH; q++) {
    let of_quad = quad_rows(first_quad + q);
    for (var i = 0u; i < 4u; i++) { rows[4u * q + i] = of_quad[i]; }
  }
  var statistics: array<vec2f, BATCH>;
  for (var t = 0u; t < BATCH; t++) { statistics[t] = input_statistics(t, first, stride); }
  var sums: BatchSums;
  for (var block = first; block < BLOCKS; block += stride) {
    var of_tokens: array<Block, BATCH>;
    for (var t = 0u; t < BATCH; t++) {
      let raw = input_block(t, block);
      sums.squares[t] += square_sum(raw);
      of_tokens[t] = arrange(normed(raw, block, statistics[t]));
    }
    for (var i = 0u; i < ROWS_EACH; i++) {
      let w = weight_block(rows[i], block);
      let scale = weight_scale(rows[i], block);
      for (var t = 0u; t < BATCH; t++) { sums.y[i * BATCH + t] += scale * dot_blocks(w, of_tokens[t]); }
    }
  }
  return sums;
}

fn quad_of(sums: ptr<function, BatchSums>, quad: u32, t: u32) -> vec4f {
  let i = 4u * quad * BATCH + t;
  return vec4f((*sums).y[i], (*sums).y[i + BATCH], (*sums).y[i + 2u * BATCH], (*sums).y[i + 3u * BATCH]);
}
