@compute @workgroup_size(1)
fn main() {
  history[state[STATE_POSITION]] = state[STATE_TOKEN];
}
