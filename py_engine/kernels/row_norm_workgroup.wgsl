// One workgroup a token.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  normalize_row(group.y, thread, WORKGROUP);
}
