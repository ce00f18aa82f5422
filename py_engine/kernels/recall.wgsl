@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < state[STATE_N_TOKENS]) {
    tokens[id.x] = history[state[STATE_POSITION] + id.x];
  }
}
