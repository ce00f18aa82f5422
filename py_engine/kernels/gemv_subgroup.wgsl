// One subgroup for four rows: no shared memory and no barrier. A subgroup of 128 lanes (Adreno) has
// only the workgroup's 64, hence the `min`.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(num_subgroups) n_subgroups: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_size) size: u32) {
  let quad = (group.y * GROUPS_X + group.x) * n_subgroups + subgroup;
  if (quad >= QUADS) { return; }
  let sums = accumulate(quad_rows(quad), lane, min(size, WORKGROUP));
  let y = subgroupAdd(sums.y) * inverse_rms(subgroupAdd(sums.squares));
  if (lane < 4u) { finish(0u, quad, lane, y); }
}
