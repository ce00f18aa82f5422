// The only part has all that a head needs.
fn keep_part(cached: u32, split: u32, i: u32, sum: vec4f, highest: f32, denominator: f32) {
  write_head(cached, i, sum, denominator);
}
