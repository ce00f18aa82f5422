fn keys_per_split(n_keys: u32) -> u32 { return max(LEAST_KEYS, (n_keys + SPLITS - 1u) / SPLITS); }
