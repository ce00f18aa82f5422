// What a row is shifted by and scaled by: its mean, and one over its deviation. The variance is the
// mean of squared deviations, because a difference of means of squares cancels.
fn row_statistics(token: u32, thread: u32, stride: u32) -> vec2f {
  var sum = 0.0;
  for (var i = thread; i < COLUMNS / 4u; i += stride) { sum += dot(read4(token, i), vec4f(1.0)); }
  let mean = total(sum, thread) / f32(COLUMNS);
  var squares = 0.0;
  for (var i = thread; i < COLUMNS / 4u; i += stride) {
    let deviation = read4(token, i) - mean;
    squares += dot(deviation, deviation);
  }
  return vec2f(mean, inverseSqrt(total(squares, thread) / f32(COLUMNS) + EPSILON));
}
