// A tile of 32 rows by 32 tokens a workgroup, 32 columns at a time through shared memory; every
// thread owns four rows of four tokens. For adapters without subgroups.
const STRIDE = 9u;  // 8 vec4 of a tile row and one of padding against bank conflicts
var<workgroup> tile_w: array<vec4f, 32 * STRIDE>;
var<workgroup> tile_x: array<vec4f, 32 * STRIDE>;

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u,
        @builtin(local_invocation_index) thread: u32) {
  let n_tokens = state[STATE_N_TOKENS];
  let first_token = group.y * 32u;
  var y: array<vec4f, 4>;
  for (var block = 0u; block < BLOCKS; block++) {
    // Half a tile row of either matrix: 16 columns.
    let line = thread >> 1u;
    let half = thread & 1u;
    let row = quad_rows(min(group.x * 8u + (line >> 2u), QUADS - 1u))[line & 3u];
    let values = weight_16(row, block * 2u + half);
    let at = line * STRIDE + half * 4u;
    tile_w[at] = values[0];
    tile_w[at + 1u] = values[1];
    tile_w[at + 2u] = values[2];
    tile_w[at + 3u] = values[3];
    let token = min(first_token + line, n_tokens - 1u);
    let first = (token * BLOCKS + block) * 8u + half * 4u;
    tile_x[at] = x[first];
    tile_x[at + 1u] = x[first + 1u];
    tile_x[at + 2u] = x[first + 2u];
    tile_x[at + 3u] = x[first + 3u];
    workgroupBarrier();
    for (var k = 0u; k < 8u; k++) {
      let w0 = tile_w[(local.x * 4u) * STRIDE + k];
      let w1 = tile_w[(local.x * 4u + 1u) * STRIDE + k];
      let w2 = tile_w[(local.x * 4u + 2u) * STRIDE + k];
      let w3 = tile_w[(local.x * 4u + 3u) * STRIDE + k];
      for (var t = 0u; t < 4u; t++) {
        let v = tile_x[(local.y * 4u + t) * STRIDE + k];
        y[t] += vec4f(dot(w0, v), dot(w1, v), dot(w2, v), dot(w3, v));
      }
    }
    workgroupBarrier();
  }
  let quad = group.x * 8u + local.x;
  for (var t = 0u; t < 4u; t++) {
    let token = first_token + local.y * 4u + t;
    if (quad < QUADS && token < n_tokens) {
      for (var lane = 0u; lane < 4u; lane++) { finish(token, quad, lane, y[t]); }
    }
  }
}
