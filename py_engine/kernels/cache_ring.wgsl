// The KV cache keeps the first SINKS positions and, in a ring of RING slots, the latest ones.
// A query sees the sinks and then the last positions up to its own, at most WINDOW in all.
fn slot_of(position: u32) -> u32 {
  return select(SINKS + (position - SINKS) % RING, position, position < SINKS);
}

fn slots_of(positions: vec4u) -> vec4u {
  return select(SINKS + (positions - SINKS) % RING, positions, positions < vec4u(SINKS));
}

// The slot of a query's `key`-th visible key, where `oldest` is that of the first after the sinks.
fn slot_of_key(key: u32, oldest: u32) -> u32 {
  let slot = oldest + key - SINKS;
  return select(select(slot, slot - RING, slot >= SINKS + RING), key, key < SINKS);
}

fn visible_keys(position: u32) -> u32 { return min(position + 1u, WINDOW); }

// The first position that `position` sees after the sinks.
fn first_in_window(position: u32) -> u32 { return SINKS + max(position + 1u, WINDOW) - WINDOW; }
