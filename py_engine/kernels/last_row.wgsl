// The chunk's last token goes on alone: the head is never computed for the others.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < COLUMNS / 4u) {
    output[id.x] = x[(state[STATE_N_TOKENS] - 1u) * (COLUMNS / 4u) + id.x];
  }
}
