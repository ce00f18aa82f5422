// The only part has all that a head needs.
fn keep_part(part: Part, i: u32, sum: vec4f, highest: f32, denominator: f32) {
  write_head(part.token, part.cached, i, sum, denominator);
}
fn keep_nothing(part: Part) {}
