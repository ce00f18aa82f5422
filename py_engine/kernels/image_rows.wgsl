@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = state[STATE_IMAGES + id.y];
  if (row == 0u || id.x >= COLUMNS / 4u) { return; }
  output[id.y * (COLUMNS / 4u) + id.x] = images[(row - 1u) * (COLUMNS / 4u) + id.x];
}
