// Integer dot products: x in 8 bits and codes in bytes. Halves of all blocks lie together, so that threads
// side by side read lines side by side.
const W_ITEMS = TILE_ROWS * TILE_BLOCKS;
const X_ITEMS = TILE_TOKENS * TILE_BLOCKS;
var<workgroup> w_low: array<vec4u, W_ITEMS>;
var<workgroup> w_high: array<vec4u, W_ITEMS>;
var<workgroup> w_scale_zero: array<vec2f, W_ITEMS>;
var<workgroup> x_low: array<vec4u, X_ITEMS>;
var<workgroup> x_high: array<vec4u, X_ITEMS>;
var<workgroup> x_scale_sum: array<vec2f, X_ITEMS>;

// Past the last block weights have a scale of 0.
fn stage_weights(first_quad: u32, first_block: u32, item: u32) {
  let line = item / TILE_BLOCKS;
  let block = first_block + item % TILE_BLOCKS;
  let at = item % TILE_BLOCKS * TILE_ROWS + line;
  let row = row_of_line(first_quad, line);
  let here = min(block, BLOCKS - 1u);
  let w = weights_at(row, here);
  w_low[at] = w.low;
  w_high[at] = w.high;
  w_scale_zero[at] = vec2f(select(0.0, weight_scale(row, here), block < BLOCKS), w.zero);
}

fn stage_input(first_token: u32, n_tokens: u32, first_block: u32, item: u32) {
  let line = item / TILE_BLOCKS;
  let block = min(first_block + item % TILE_BLOCKS, BLOCKS - 1u);
  let at = item % TILE_BLOCKS * TILE_TOKENS + line;
  let v = operand(input_block(min(first_token + line, n_tokens - 1u), block));
  x_low[at] = v.low;
  x_high[at] = v.high;
  x_scale_sum[at] = vec2f(v.scale, v.sum);
}

fn staged_weights(at: u32) -> Weights { return Weights(w_low[at], w_high[at], w_scale_zero[at].y); }

fn add_block(block: u32, i: u32, j: u32, y: ptr<function, Sums>) {
  for (var q = 0u; q < THREAD_QUADS; q++) {
    let at = block * TILE_ROWS + q * 64u + i;
    let w0 = staged_weights(at);
    let w1 = staged_weights(at + 16u);
    let w2 = staged_weights(at + 32u);
    let w3 = staged_weights(at + 48u);
    let scales = vec4f(w_scale_zero[at].x, w_scale_zero[at + 16u].x, w_scale_zero[at + 32u].x, w_scale_zero[at + 48u].x);
    for (var t = 0u; t < THREAD_TOKENS; t++) {
      let at_x = block * TILE_TOKENS + t * 16u + j;
      let v = Operand(x_low[at_x], x_high[at_x], x_scale_sum[at_x].x, x_scale_sum[at_x].y);
      (*y)[t * THREAD_QUADS + q] += scales * vec4f(product(w0, v), product(w1, v), product(w2, v), product(w3, v));
    }
  }
}
