const COLUMNS4 = COLUMNS / 4u;

fn square_sum(token: u32, first: u32, stride: u32) -> f32 {
  var sum = 0.0;
  for (var i = token * COLUMNS4 + first; i < (token + 1u) * COLUMNS4; i += stride) { sum += dot(x[i], x[i]); }
  return sum;
}

fn scale_row(token: u32, first: u32, stride: u32, sum: f32) {
  let scale = inverseSqrt(sum / f32(COLUMNS) + EPSILON);
  for (var i = first; i < COLUMNS4; i += stride) {
    output[token * COLUMNS4 + i] = x[token * COLUMNS4 + i] * scale * norm[i];
  }
}
