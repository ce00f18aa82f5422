// gemv_quads for BATCH tokens, with the same bits (quads_of_tokens.wgsl).
const TOKENS = BATCH;

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
    var t = 0u;
    loop {
      let raw = input_block(t, block);
      squares[t] += select(0.0, square_sum(raw), is_there);
      x_of[t] = operand(normed(raw, block, statistics[t]));
      continuing { t++; break if t == BATCH; }
    }
    add_block(first_quad, block, is_there, lane);
  }
  var scales: array<f32, BATCH>;
  for (var t = 0u; t < BATCH; t++) { scales[t] = inverse_rms(subgroupAdd(squares[t])); }
  if (lane >= 4u) { return; }
  for (var t = lane; t < BATCH; t += 4u) {
    for (var q = 0u; q < QUADS_EACH && first_quad + q < QUADS; q++) {
      let y = quad_sums(q, t / 4u) * scales[t];
      for (var i = 0u; i < 4u; i++) { finish(t, first_quad + q, i, y); }
    }
  }
}
