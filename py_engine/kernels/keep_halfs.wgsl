// What a token leaves in the cache: its key and value of one head, four by four.
fn keep_k(row: u32, i: u32, x: vec4f) { k_cache[row + i] = pack_halfs(x); }
fn keep_v(row: u32, i: u32, x: vec4f) { v_cache[row + i] = pack_halfs(x); }
fn keep_head(row: u32, thread: u32) {}
