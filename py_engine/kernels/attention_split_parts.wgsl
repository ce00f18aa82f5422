// `attention_combine` joins the parts.
fn keep_part(part: Part, i: u32, sum: vec4f, highest: f32, denominator: f32) {
  let at = part_at(part.token, part.cached) + part.split * PART4;
  split_parts[at + i] = sum;
  if (i == 0u) { split_parts[at + HEAD4] = vec4f(highest, denominator, 0.0, 0.0); }
}
