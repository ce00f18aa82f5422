const TILE_QUADS = TILE_ROWS / 4u;
const TILE_BLOCKS = TILE_COLUMNS / 32u;
const THREAD_QUADS = TILE_ROWS / 64u;
const THREAD_TOKENS = TILE_TOKENS / 16u;

// A thread's outputs.
alias Sums = array<vec4f, THREAD_QUADS * THREAD_TOKENS>;

// Lines in the order lane, quad, as in gemm_tile.
fn row_of_line(first_quad: u32, line: u32) -> u32 {
  let quad = first_quad + line / 64u * 16u + line % 16u;
  return quad_rows(min(quad, QUADS - 1u))[line / 16u % 4u];
}
