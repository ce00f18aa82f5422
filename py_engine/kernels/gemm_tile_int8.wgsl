// gemm_tile with integer dot products: x in 8 bits and codes in bytes, TILE_BLOCKS blocks of 32 columns at a
// time. Halves of all blocks lie together, so that threads side by side read lines side by side.
const TILE_QUADS = TILE_ROWS / 4u;
const TILE_BLOCKS = TILE_COLUMNS / 32u;
const THREAD_QUADS = TILE_ROWS / 64u;
const THREAD_TOKENS = TILE_TOKENS / 16u;
const W_LINES = TILE_ROWS * TILE_BLOCKS;
const X_LINES = TILE_TOKENS * TILE_BLOCKS;
var<workgroup> w_low: array<vec4u, W_LINES>;
var<workgroup> w_high: array<vec4u, W_LINES>;
var<workgroup> w_scale_zero: array<vec2f, W_LINES>;
var<workgroup> x_low: array<vec4u, X_LINES>;
var<workgroup> x_high: array<vec4u, X_LINES>;
var<workgroup> x_scale_sum: array<vec2f, X_LINES>;

// Lines in the order lane, quad, as in gemm_tile. Past the last block weights have a scale of 0.
fn stage_weights(first_quad: u32, line: u32, block: u32, at: u32) {
  let quad = first_quad + line / 64u * 16u + line % 16u;
  let row = quad_rows(min(quad, QUADS - 1u))[line / 16u % 4u];
  let here = min(block, BLOCKS - 1u);
  let w = weights_at(row, here);
  w_low[at] = w.low;
  w_high[at] = w.high;
  w_scale_zero[at] = vec2f(select(0.0, weight_scale(row, here), block < BLOCKS), w.zero);
}

fn stage_input(token: u32, block: u32, at: u32) {
  let v = operand(input_block(token, min(block, BLOCKS - 1u)));
  x_low[at] = v.low;
  x_high[at] = v.high;
  x_scale_sum[at] = vec2f(v.scale, v.sum);
}

fn staged_weights(at: u32) -> Weights { return Weights(w_low[at], w_high[at], w_scale_zero[at].y); }

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let n_tokens = state[STATE_N_TOKENS];
  let first_quad = group.x * TILE_QUADS;
  let first_token = group.y * TILE_TOKENS;
  // As in gemm_tile: 32 threads form a patch of 8 x 4.
  let i = thread % 8u + (thread / 32u % 2u) * 8u;
  let j = thread / 8u % 4u + (thread / 64u) * 4u;
  var y: array<vec4f, THREAD_QUADS * THREAD_TOKENS>;
  for (var first = 0u; first < BLOCKS; first += TILE_BLOCKS) {
    for (var item = thread; item < W_LINES + X_LINES; item += 256u) {
      // Whole subgroups bring weights while others bring x.
      if (item < W_LINES) {
        let line = item / TILE_BLOCKS;
        stage_weights(first_quad, line, first + item % TILE_BLOCKS, item % TILE_BLOCKS * TILE_ROWS + line);
      } else {
        let line = (item - W_LINES) / TILE_BLOCKS;
        let token = min(first_token + line, n_tokens - 1u);
        stage_input(token, first + item % TILE_BLOCKS, item % TILE_BLOCKS * TILE_TOKENS + line);
      }
    }
    workgroupBarrier();
    for (var block = 0u; block < TILE_BLOCKS; block++) {
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
          y[t * THREAD_QUADS + q] += scales * vec4f(product(w0, v), product(w1, v), product(w2, v), product(w3, v));
        }
      }
    }
    workgroupBarrier();
  }
  for (var t = 0u; t < THREAD_TOKENS; t++) {
    let token = first_token + t * 16u + j;
    for (var q = 0u; q < THREAD_QUADS; q++) {
      let quad = first_quad + q * 16u + i;
      if (quad < QUADS && token < n_tokens) {
        for (var lane = 0u; lane < 4u; lane++) { finish(token, quad, lane, y[t * THREAD_QUADS + q]); }
      }
    }
  }
}
