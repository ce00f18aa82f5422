fn count(token: u32) { counts[token] += 1u; }
