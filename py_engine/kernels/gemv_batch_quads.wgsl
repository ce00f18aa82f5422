// The same for the rows of several quads, which share the loads of x: for adapters on the CPU. They
// take a place in an array from memory, lane by lane, unless it is a constant: hence tokens by number.
const ROWS_EACH = 4u * QUADS_EACH;

struct BatchSums { low: array<vec4f, ROWS_EACH>, high: array<vec4f, ROWS_EACH>, squares: array<f32, BATCH> }

fn accumulate(first_quad: u32, first: u32, stride: u32) -> BatchSums {
  var statistics: array<vec2f, BATCH>;
  for (var t = 0u; t < BATCH; t++) { statistics[t] = input_statistics(t, first, stride); }
  var sums: BatchSums;
  for (var block = first; block < BLOCKS; block += stride) {
    var x: array<Block, 8>;
    for (var t = 0u; t < BATCH; t++) {
      let raw = input_block(t, block);
      sums.squares[t] += square_sum(raw);
      x[t] = arrange(normed(raw, block, statistics[t]));
    }
    for (var q = 0u; q < QUADS_EACH; q++) {
      for (var i = 0u; i < 4u; i++) {
        let row = quad_row(first_quad + q, i);
        let w = weight_block(row, block);
        let scale = weight_scale(row, block);
        sums.low[4u * q + i] += scale * vec4f(dot_of(0u, w, x[0]), dot_of(1u, w, x[1]),
                                              dot_of(2u, w, x[2]), dot_of(3u, w, x[3]));
        if (BATCH > 4u) {
          sums.high[4u * q + i] += scale * vec4f(dot_of(4u, w, x[4]), dot_of(5u, w, x[5]),
                                                 dot_of(6u, w, x[6]), dot_of(7u, w, x[7]));
        }
      }
    }
  }
  return sums;
}

// Compilers leave out what is not of the batch.
fn dot_of(t: u32, w: Block, x: Block) -> f32 {
  if (t >= BATCH) { return 0.0; }
  return dot_blocks(w, x);
}

fn quad_of(sums: ptr<function, BatchSums>, quad: u32, t: u32) -> vec4f {
  let i = 4u * quad;
  if (t < 4u) { return vec4f((*sums).low[i][t], (*sums).low[i + 1u][t], (*sums).low[i + 2u][t], (*sums).low[i + 3u][t]); }
  let u = t - 4u;
  return vec4f((*sums).high[i][u], (*sums).high[i + 1u][u], (*sums).high[i + 2u][u], (*sums).high[i + 3u][u]);
}
