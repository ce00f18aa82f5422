// One subgroup for the rows of several quads, which share every load of x: for adapters on the CPU,
// which load lane by lane. A block's sums are brought together at once, as a batch's are.
const ROWS_EACH = 4u * QUADS_EACH;

var<private> sums: array<f32, ROWS_EACH>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(num_subgroups) n_subgroups: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_size) size: u32) {
  let first_quad = ((group.y * GROUPS_X + group.x) * n_subgroups + subgroup) * QUADS_EACH;
  if (first_quad >= QUADS) { return; }
  let stride = min(size, WORKGROUP);
  let statistics = input_statistics(0u, lane, stride);
  var squares = 0.0;
  for (var first = 0u; first < BLOCKS; first += stride) {
    let is_there = first + lane < BLOCKS;
    let block = min(first + lane, BLOCKS - 1u);
    let raw = input_block(0u, block);
    squares += select(0.0, square_sum(raw), is_there);
    let v = operand(normed(raw, block, statistics));
    for (var r = 0u; r < ROWS_EACH; r++) {
      let row = quad_row(first_quad + r / 4u, r % 4u);
      let scale = select(0.0, weight_scale(row, block), is_there);
      sums[r] += subgroupAdd(scale * product(weights_at(row, block), v));
    }
  }
  let scale = inverse_rms(subgroupAdd(squares));
  for (var q = 0u; q < QUADS_EACH; q++) {
    let i = 4u * q;
    let y = vec4f(sums[i], sums[i + 1u], sums[i + 2u], sums[i + 3u]) * scale;
    if (lane < 4u && first_quad + q < QUADS) { finish(0u, first_quad + q, lane, y); }
  }
}
