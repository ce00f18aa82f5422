// Writes four elements of a head of the cache at hand, from sums over all keys that are not divided yet.
fn write_head(cached: u32, i: u32, sum: vec4f, denominator: f32) {
  let head = FIRST_CACHE_HEAD * N_REP + cached;
  output[head * HEAD4 + i] = output_of(sum / denominator, 0u, head, i);
}
