// What a row is shifted by and scaled by: 0, and one over its root mean square.
fn row_statistics(token: u32, thread: u32, stride: u32) -> vec2f {
  var squares = 0.0;
  for (var i = thread; i < COLUMNS / 4u; i += stride) {
    let value = read4(token, i);
    squares += dot(value, value);
  }
  return vec2f(0.0, inverseSqrt(total(squares, thread) / f32(COLUMNS) + EPSILON));
}
