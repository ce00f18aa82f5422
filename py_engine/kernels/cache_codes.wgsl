// The KV cache in 8 bits: a head's fours of codes, and behind them what a code of 1 stands for.
const CACHE_ROW = HEAD4 + 1u;
fn cached_at(slot: u32, number: u32) -> u32 { return ((first_slot + slot) * CACHE_HEADS + number) * CACHE_ROW; }
fn k_at(i: u32) -> vec4f { return unpack4x8snorm(k_cache[i]); }
fn v_at(i: u32) -> vec4f { return unpack4x8snorm(v_cache[i]); }
fn k_scale(row: u32) -> f32 { return bitcast<f32>(k_cache[row + HEAD4]); }
fn v_scale(row: u32) -> f32 { return bitcast<f32>(v_cache[row + HEAD4]); }
