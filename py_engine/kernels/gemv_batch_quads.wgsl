// gemv_quads for BATCH tokens, with the same bits. Lane i has the sums of tokens i and i + 4: adapters on
// the CPU take a place in an array from memory, lane by lane, unless it is a constant. Hence tokens by
// number, too.
const ROWS_EACH = 4u * QUADS_EACH;

var<private> sums: array<vec2f, ROWS_EACH>;
var<private> x_of: array<Operand, 8>;

// Compilers leave out what is not of the batch.
fn dot_of(t: u32, w: Weights, x: Operand) -> f32 {
  if (t >= BATCH) { return 0.0; }
  return product(w, x);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(num_subgroups) n_subgroups: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_size) size: u32) {
  let first_quad = ((group.y * GROUPS_X + group.x) * n_subgroups + subgroup) * QUADS_EACH;
  if (first_quad >= QUADS) { return; }
  let stride = min(size, WORKGROUP);
  var statistics: array<vec2f, BATCH>;
  for (var t = 0u; t < BATCH; t++) { statistics[t] = input_statistics(t, lane, stride); }
  var squares: array<f32, BATCH>;
  for (var first = 0u; first < BLOCKS; first += stride) {
    let is_there = first + lane < BLOCKS;
    let block = min(first + lane, BLOCKS - 1u);
    let column = column_of(block);
    var t = 0u;
    loop {
      let raw = input_block(t, block);
      squares[t] += select(0.0, square_sum(raw), is_there);
      x_of[t] = operand(normed(raw, block, statistics[t]));
      continuing { t++; break if t == BATCH; }
    }
    for (var q = 0u; q < QUADS_EACH; q++) {
      var i = 0u;
      loop {
        let row = quad_row(first_quad + q, i);
        let w = weights_at(row, block);
        let scale = select(0.0, row_scale(row, column), is_there);
        let low = subgroupAdd(scale * vec4f(dot_of(0u, w, x_of[0]), dot_of(1u, w, x_of[1]),
                                            dot_of(2u, w, x_of[2]), dot_of(3u, w, x_of[3])));
        sums[4u * q + i].x += of_lane(lane, low);
        if (BATCH > 4u) {
          let high = subgroupAdd(scale * vec4f(dot_of(4u, w, x_of[4]), dot_of(5u, w, x_of[5]),
                                               dot_of(6u, w, x_of[6]), dot_of(7u, w, x_of[7])));
          sums[4u * q + i].y += of_lane(lane, high);
        }
        continuing { i++; break if i == 4u; }
      }
    }
  }
  var scales: array<f32, BATCH>;
  for (var t = 0u; t < BATCH; t++) { scales[t] = inverse_rms(subgroupAdd(squares[t])); }
  if (lane >= 4u) { return; }
  for (var t = lane; t < BATCH; t += 4u) {
    for (var q = 0u; q < QUADS_EACH && first_quad + q < QUADS; q++) {
      let r = 4u * q;
      let half = t / 4u;
      let y = vec4f(sums[r][half], sums[r + 1u][half], sums[r + 2u][half], sums[r + 3u][half]) * scales[t];
      for (var i = 0u; i < 4u; i++) { finish(t, first_quad + q, i, y); }
    }
  }
}
