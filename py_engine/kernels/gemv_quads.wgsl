// One subgroup for the rows of several quads, which share every load of x: for adapters on the CPU,
// which load lane by lane, and divide and shift so (attention_lanes.wgsl has what else they do). A block's
// sums are brought together at once, as a batch's are, and lane i keeps those of row i of each quad.
var<private> sums: array<f32, QUADS_EACH>;

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
    let column = column_of(block);
    let raw = input_block(0u, block);
    squares += select(0.0, square_sum(raw), is_there);
    let v = operand(normed(raw, block, statistics));
    for (var q = 0u; q < QUADS_EACH; q++) {
      var sum = 0.0;
      var i = 0u;
      loop {
        let row = quad_row(first_quad + q, i);
        let scale = select(0.0, row_scale(row, column), is_there);
        sum = select(sum, subgroupAdd(scale * product(weights_at(row, block), v)), lane == i);
        continuing { i++; break if i == 4u; }
      }
      sums[q] += sum;
    }
  }
  let scale = inverse_rms(subgroupAdd(squares));
  for (var q = 0u; q < QUADS_EACH; q++) {
    let y = vec4f(subgroupBroadcast(sums[q], 0u), subgroupBroadcast(sums[q], 1u),
                  subgroupBroadcast(sums[q], 2u), subgroupBroadcast(sums[q], 3u)) * scale;
    if (lane < 4u && first_quad + q < QUADS) { finish(0u, first_quad + q, lane, y); }
  }
}
