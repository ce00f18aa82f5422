// A token by itself, or a chunk of one sequence's: `state` and the cache are the sequence's.
const first_slot = 0u;
fn enter_row(group: vec3u) -> u32 { return 0u; }
fn position_of(token: u32) -> u32 { return state[STATE_POSITION] + token; }
