@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
  let head = id.x / HEAD8;
  let i = id.x % HEAD8;
  if (head >= QKV_HEADS) { return; }
  let at = first_of(group.y, head) + i;
  append(group.y, head, i, qkv[at], qkv[at + HEAD8]);
}
