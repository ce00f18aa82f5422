// Tokens of a batch, each with its row of the activations. `rows` has the first word of each one's
// `state`, and the first slot of its cache.
var<private> first_slot: u32;
fn enter_row(group: vec3u) -> u32 {
  first_slot = rows[group.z].y;
  return group.z;
}
fn position_of(token: u32) -> u32 { return state[rows[token].x + STATE_POSITION]; }
