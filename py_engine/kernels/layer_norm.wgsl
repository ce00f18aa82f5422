// In place: a thread reads and writes only its own columns of a row. The variance is the mean of
// squared deviations, because a difference of means of squares cancels.
const COLUMNS4 = COLUMNS / 4u;

fn value_sum(token: u32, first: u32, stride: u32) -> f32 {
  var sum = 0.0;
  for (var i = token * COLUMNS4 + first; i < (token + 1u) * COLUMNS4; i += stride) { sum += dot(x[i], vec4f(1.0)); }
  return sum;
}

fn square_sum(token: u32, first: u32, stride: u32, mean: f32) -> f32 {
  var sum = 0.0;
  for (var i = token * COLUMNS4 + first; i < (token + 1u) * COLUMNS4; i += stride) {
    let deviation = x[i] - mean;
    sum += dot(deviation, deviation);
  }
  return sum;
}

fn normalize_row(token: u32, first: u32, stride: u32, mean: f32, squares: f32) {
  let scale = inverseSqrt(squares / f32(COLUMNS) + EPSILON);
  for (var i = first; i < COLUMNS4; i += stride) {
    let at = token * COLUMNS4 + i;
    x[at] = (x[at] - mean) * scale * norm[i] + bias[i];
  }
}
