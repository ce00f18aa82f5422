// One subgroup for the rows of several quads, which share every load of x: for adapters on the CPU,
// which load lane by lane.
const ROWS_EACH = 4u * QUADS_EACH;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(num_subgroups) n_subgroups: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_size) size: u32) {
  let first_quad = ((group.y * GROUPS_X + group.x) * n_subgroups + subgroup) * QUADS_EACH;
  if (first_quad >= QUADS) { return; }
  let stride = min(size, WORKGROUP);
  let statistics = input_statistics(0u, lane, stride);
  var squares = 0.0;
  var sums: array<f32, ROWS_EACH>;
  for (var block = lane; block < BLOCKS; block += stride) {
    let raw = input_block(0u, block);
    squares += square_sum(raw);
    let v = arrange(normed(raw, block, statistics));
    for (var q = 0u; q < QUADS_EACH; q++) {
      for (var i = 0u; i < 4u; i++) {
        let row = quad_row(first_quad + q, i);
        sums[4u * q + i] += weight_scale(row, block) * dot_blocks(weight_block(row, block), v);
      }
    }
  }
  let scale = inverse_rms(subgroupAdd(squares));
  for (var q = 0u; q < QUADS_EACH; q++) {
    let i = 4u * q;
    let y = subgroupAdd(vec4f(sums[i], sums[i + 1u], sums[i + 2u], sums[i + 3u])) * scale;
    if (lane < 4u && first_quad + q < QUADS) { finish(0u, first_quad + q, lane, y); }
  }
}
