// A tile of TILE_ROWS x TILE_TOKENS outputs for 256 threads, TILE_COLUMNS columns at a time through
// shared memory, where each weight is unpacked once. Thread (i, j) of 16 x 16 owns every 16th quad of
// rows from i on and every 16th token from j on. For GPUs, whose registers hold the sums.
const TILE_QUADS = TILE_ROWS / 4u;
const TILE_COLUMNS4 = TILE_COLUMNS / 4u;
const TILE_HALVES = TILE_COLUMNS / 16u;
const THREAD_QUADS = TILE_ROWS / 64u;
const THREAD_TOKENS = TILE_TOKENS / 16u;
var<workgroup> tile_w: array<vec4f, TILE_ROWS * TILE_COLUMNS4>;
var<workgroup> tile_x: array<vec4f, TILE_TOKENS * TILE_COLUMNS4>;

// Eight lines that follow each other have four columns each in eight different groups of banks, as
// with padding, but in memory of a power of two. Lines that are a multiple of 16 apart turn alike.
fn turn_of(line: u32) -> u32 { return (line * TILE_COLUMNS4 / 8u) % TILE_COLUMNS4; }

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let n_tokens = state[STATE_N_TOKENS];
  let first_quad = group.x * TILE_QUADS;
  let first_token = group.y * TILE_TOKENS;
  // 32 threads form a patch of 8 x 4, so that together they read few lines.
  let i = thread % 8u + (thread / 32u % 2u) * 8u;
  let j = thread / 8u % 4u + (thread / 64u) * 4u;
  var y: array<vec4f, THREAD_QUADS * THREAD_TOKENS>;
  for (var step = 0u; step < COLUMNS / TILE_COLUMNS; step++) {
    for (var item = thread; item < TILE_ROWS * TILE_HALVES; item += 256u) {
      // Lines in the order lane, quad: threads side by side then read lines side by side.
      let line = item / TILE_HALVES;
      let half = item % TILE_HALVES;
      let quad = first_quad + line / 64u * 16u + line % 16u;
      let values = weight_16(quad_rows(min(quad, QUADS - 1u))[line / 16u % 4u], step * TILE_HALVES + half);
      let at = line * TILE_COLUMNS4;
      let turn = turn_of(line);
      tile_w[at + ((half * 4u) ^ turn)] = values[0];
      tile_w[at + ((half * 4u + 1u) ^ turn)] = values[1];
      tile_w[at + ((half * 4u + 2u) ^ turn)] = values[2];
      tile_w[at + ((half * 4u + 3u) ^ turn)] = values[3];
    }
    for (var item = thread; item < TILE_TOKENS * TILE_COLUMNS4; item += 256u) {
      let line = item / TILE_COLUMNS4;
      let k = item % TILE_COLUMNS4;
      let token = min(first_token + line, n_tokens - 1u);
      tile_x[line * TILE_COLUMNS4 + (k ^ turn_of(line))] = x[token * (COLUMNS / 4u) + step * TILE_COLUMNS4 + k];
    }
    workgroupBarrier();
    for (var k = 0u; k < TILE_COLUMNS4; k++) {
      let at_w = i * TILE_COLUMNS4 + (k ^ turn_of(i));
      let at_x = j * TILE_COLUMNS4 + (k ^ turn_of(j));
      var w: array<mat4x4f, THREAD_QUADS>;
      for (var q = 0u; q < THREAD_QUADS; q++) {
        let at = at_w + q * 64u * TILE_COLUMNS4;
        w[q] = transpose(mat4x4f(tile_w[at], tile_w[at + 16u * TILE_COLUMNS4],
                                 tile_w[at + 32u * TILE_COLUMNS4], tile_w[at + 48u * TILE_COLUMNS4]));
      }
      for (var t = 0u; t < THREAD_TOKENS; t++) {
        let v = tile_x[at_x + t * 16u * TILE_COLUMNS4];
        for (var q = 0u; q < THREAD_QUADS; q++) {
          // Added one by one: four multiply-adds, where dot() would take a fifth instruction.
          var sum = y[t * THREAD_QUADS + q];
          sum += w[q][0] * v.x;
          sum += w[q][1] * v.y;
          sum += w[q][2] * v.z;
          sum += w[q][3] * v.w;
          y[t * THREAD_QUADS + q] = sum;
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
