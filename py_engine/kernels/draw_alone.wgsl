// A draw by itself, whose buffers are its own.
const row = 0u;
const state_at = 0u;
fn enter_row(group: vec3u) -> Sampling { return sampling; }
