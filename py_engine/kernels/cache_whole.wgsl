// The KV cache has a slot for every position, and a query sees all up to its own.
fn slot_of(position: u32) -> u32 { return position; }
fn slots_of(positions: vec4u) -> vec4u { return positions; }
fn slot_of_key(key: u32, oldest: u32) -> u32 { return key; }
fn visible_keys(position: u32) -> u32 { return position + 1u; }
fn first_in_window(position: u32) -> u32 { return 0u; }
