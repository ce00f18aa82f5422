// As many as ALONE_KEYS are all in one part.
fn keys_per_split(n_keys: u32) -> u32 {
  return select(max(LEAST_KEYS, (n_keys + SPLITS - 1u) / SPLITS), ALONE_KEYS, n_keys <= ALONE_KEYS);
}

// Where the parts of a token's head of the cache at hand begin, one behind the other.
const PART4 = HEAD4 + 1u;
fn part_at(token: u32, cached: u32) -> u32 { return (token * CACHE_HEADS * N_REP + cached) * SPLITS * PART4; }
