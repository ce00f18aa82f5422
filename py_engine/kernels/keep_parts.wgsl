// `attention_combine` joins the parts, or the product behind them (input_parts.wgsl).
fn keep_part(part: Part, i: u32, sum: vec4f, highest: f32, denominator: f32) {
  let at = part_of(part);
  split_parts[at + i] = sum;
  if (i == 0u) { split_parts[at + HEAD4] = vec4f(highest, denominator, 0.0, 0.0); }
}

fn keep_nothing(part: Part) { split_parts[part_of(part) + HEAD4] = vec4f(MASKED, 0.0, 0.0, 0.0); }

fn part_of(part: Part) -> u32 { return part_at(part.token, part.cached) + part.split * PART4; }
