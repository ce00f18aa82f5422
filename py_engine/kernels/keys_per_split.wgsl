// As many as ALONE_KEYS are all in one part.
fn keys_per_split(n_keys: u32) -> u32 {
  return select(max(LEAST_KEYS, (n_keys + SPLITS - 1u) / SPLITS), ALONE_KEYS, n_keys <= ALONE_KEYS);
}

// The first key of a part, and the one behind it; those of a part without keys are the same.
fn keys_of_part(split: u32, n_keys: u32) -> vec2u {
  let size = keys_per_split(n_keys);
  return min(vec2u(split, split + 1u) * size, vec2u(n_keys));
}

// Where the parts of a token's head of the cache at hand begin, one behind the other.
const PART4 = HEAD4 + 1u;
fn part_at(token: u32, cached: u32) -> u32 { return (token * CACHE_HEADS * N_REP + cached) * SPLITS * PART4; }
