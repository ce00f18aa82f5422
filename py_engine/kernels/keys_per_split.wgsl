// As many as ALONE_KEYS are all in one part.
fn keys_per_split(n_keys: u32) -> u32 {
  return select(max(LEAST_KEYS, (n_keys + SPLITS - 1u) / SPLITS), ALONE_KEYS, n_keys <= ALONE_KEYS);
}
