// Of a token, a head of the cache at hand, and a part of the keys.
struct Part { token: u32, cached: u32, split: u32 }
