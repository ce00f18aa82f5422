// `attention_combine` joins the parts.
fn keep_part(cached: u32, split: u32, i: u32, sum: vec4f, highest: f32, denominator: f32) {
  let part = (cached * SPLITS + split) * (HEAD4 + 1u);
  split_parts[part + i] = sum;
  if (i == 0u) { split_parts[part + HEAD4] = vec4f(highest, denominator, 0.0, 0.0); }
}
