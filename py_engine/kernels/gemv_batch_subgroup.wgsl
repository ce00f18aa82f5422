// One subgroup for the rows of several quads: no shared memory and no barrier.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(num_subgroups) n_subgroups: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_size) size: u32) {
  let first_quad = ((group.y * GROUPS_X + group.x) * n_subgroups + subgroup) * QUADS_EACH;
  if (first_quad >= QUADS) { return; }
  var sums = accumulate(first_quad, lane, min(size, WORKGROUP));
  for (var t = 0u; t < BATCH; t++) {
    let scale = inverse_rms(subgroupAdd(sums.squares[t]));
    for (var q = 0u; q < QUADS_EACH; q++) {
      let y = subgroupAdd(quad_of(&sums, q, t)) * scale;
      if (lane < 4u && first_quad + q < QUADS) { finish(t, first_quad + q, lane, y); }
    }
  }
}
