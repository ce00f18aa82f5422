// One subgroup a token: no barrier.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(num_subgroups) n_subgroups: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_size) size: u32) {
  let token = group.y * n_subgroups + subgroup;
  if (token >= row_count()) { return; }
  normalize_row(token, lane, min(size, WORKGROUP));
}
