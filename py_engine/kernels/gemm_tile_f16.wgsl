// Weights and x in f16, four columns a vector: GPUs multiply f16 up to twice as fast, and half as many bytes pass
// through shared memory. A block's x is relative to its largest, so that nothing overflows. In f16 eight
// products are added up, for each of the four columns; all else is in f32.
const FOURS = 8u;
const W_ITEMS = TILE_ROWS * TILE_BLOCKS * 2u;
const X_ITEMS = TILE_TOKENS * TILE_BLOCKS;
// Fours of all lines lie together, so that threads side by side read lines side by side.
var<workgroup> tile_w: array<vec4h, TILE_ROWS * TILE_BLOCKS * FOURS>;
var<workgroup> tile_x: array<vec4h, TILE_TOKENS * TILE_BLOCKS * FOURS>;
var<workgroup> x_scales: array<f32, X_ITEMS>;

fn stage_weights(first_quad: u32, first_block: u32, item: u32) {
  let line = item % TILE_ROWS;
  let half = item / TILE_ROWS;
  let values = weight_16(row_of_line(first_quad, line), min(first_block * 2u + half, 2u * BLOCKS - 1u));
  for (var i = 0u; i < 4u; i++) { tile_w[(half * 4u + i) * TILE_ROWS + line] = vec4h(values[i]); }
}

// Past the last block x has a scale of 0.
fn stage_input(first_token: u32, n_tokens: u32, first_block: u32, item: u32) {
  let line = item % TILE_TOKENS;
  let block = item / TILE_TOKENS;
  let v = input_block(min(first_token + line, n_tokens - 1u), min(first_block + block, BLOCKS - 1u));
  // Where all is smaller, one over it might overflow.
  let largest = max(1e-30, largest_of(v));
  let f = 1.0 / largest;
  let at = block * FOURS * TILE_TOKENS + line;
  tile_x[at] = vec4h(f * v.a);
  tile_x[at + TILE_TOKENS] = vec4h(f * v.b);
  tile_x[at + 2u * TILE_TOKENS] = vec4h(f * v.c);
  tile_x[at + 3u * TILE_TOKENS] = vec4h(f * v.d);
  tile_x[at + 4u * TILE_TOKENS] = vec4h(f * v.e);
  tile_x[at + 5u * TILE_TOKENS] = vec4h(f * v.f);
  tile_x[at + 6u * TILE_TOKENS] = vec4h(f * v.g);
  tile_x[at + 7u * TILE_TOKENS] = vec4h(f * v.h);
  x_scales[item] = select(0.0, largest, first_block + block < BLOCKS);
}

fn sum4(v: vec4h) -> f32 {
  let pair = vec2f(v.xy + v.zw);
  return pair.x + pair.y;
}

fn add_block(block: u32, i: u32, j: u32, y: ptr<function, Sums>) {
  var parts = array<array<vec4h, 4>, THREAD_QUADS * THREAD_TOKENS>();
  for (var k = block * FOURS; k < (block + 1u) * FOURS; k++) {
    var v: array<vec4h, THREAD_TOKENS>;
    for (var t = 0u; t < THREAD_TOKENS; t++) { v[t] = tile_x[k * TILE_TOKENS + t * 16u + j]; }
    for (var q = 0u; q < THREAD_QUADS; q++) {
      let at = k * TILE_ROWS + q * 64u + i;
      let w0 = tile_w[at];
      let w1 = tile_w[at + 16u];
      let w2 = tile_w[at + 32u];
      let w3 = tile_w[at + 48u];
      for (var t = 0u; t < THREAD_TOKENS; t++) {
        let n = t * THREAD_QUADS + q;
        parts[n][0] += w0 * v[t];
        parts[n][1] += w1 * v[t];
        parts[n][2] += w2 * v[t];
        parts[n][3] += w3 * v[t];
      }
    }
  }
  for (var t = 0u; t < THREAD_TOKENS; t++) {
    let scale = x_scales[block * TILE_TOKENS + t * 16u + j];
    for (var q = 0u; q < THREAD_QUADS; q++) {
      let n = t * THREAD_QUADS + q;
      (*y)[n] += scale * vec4f(sum4(parts[n][0]), sum4(parts[n][1]), sum4(parts[n][2]), sum4(parts[n][3]));
    }
  }
}
