// gemm_tile where x is rounded: blocks of 32 columns come with a scale of x each, TILE_BLOCKS at a time. How
// they lie in shared memory, and are multiplied there, is the matter of gemm_tile_f16 and gemm_tile_int8.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let n_tokens = state[STATE_N_TOKENS];
  let first_quad = group.x * TILE_QUADS;
  let first_token = group.y * TILE_TOKENS;
  // As in gemm_tile: 32 threads form a patch of 8 x 4.
  let i = thread % 8u + (thread / 32u % 2u) * 8u;
  let j = thread / 8u % 4u + (thread / 64u) * 4u;
  var y: Sums;
  for (var first = 0u; first < BLOCKS; first += TILE_BLOCKS) {
    for (var item = thread; item < W_ITEMS + X_ITEMS; item += 256u) {
      // Whole subgroups bring weights while others bring x.
      if (item < W_ITEMS) {
        stage_weights(first_quad, first, item);
      } else {
        stage_input(first_token, n_tokens, first, item - W_ITEMS);
      }
    }
    workgroupBarrier();
    for (var block = 0u; block < TILE_BLOCKS; block++) { add_block(block, i, j, &y); }
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
