// The KV cache in f16. A head of a slot begins at its row; row + i is its four number i.
const CACHE_ROW = HEAD4;
fn cached_at(slot: u32, number: u32) -> u32 { return ((first_slot + slot) * CACHE_HEADS + number) * CACHE_ROW; }
fn k_at(i: u32) -> vec4f { return unpack_halfs(k_cache[i]); }
fn v_at(i: u32) -> vec4f { return unpack_halfs(v_cache[i]); }
fn k_scale(row: u32) -> f32 { return 1.0; }
fn v_scale(row: u32) -> f32 { return 1.0; }
