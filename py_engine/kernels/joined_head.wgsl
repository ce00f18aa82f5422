// Writes four elements of a head of the cache at hand, from sums over all keys that are not divided yet.
fn write_head(token: u32, cached: u32, i: u32, sum: vec4f, denominator: f32) {
  let head = FIRST_CACHE_HEAD * N_REP + cached;
  output[output_at(token, head) + i] = output_of(sum / denominator, token, head, i);
}
