// One subgroup for a quad of rows: no shared memory and no barrier.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(num_subgroups) n_subgroups: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_size) size: u32) {
  let quad = (group.y * GROUPS_X + group.x) * n_subgroups + subgroup;
  if (quad >= QUADS) { return; }
  let sums = accumulate(quad, lane, min(size, WORKGROUP));
  for (var t = 0u; t < BATCH; t++) {
    let scale = inverse_rms(subgroupAdd(sums.squares[t]));
    let y = subgroupAdd(sums.y[t]) * scale;
    if (lane < 4u) { finish(t, quad, lane, y); }
  }
}
