// What a branch adds to the residual: its output through the norm behind it, an RMSNorm.
fn branch_scale(token: u32, thread: u32, stride: u32) -> f32 {
  var squares = 0.0;
  for (var i = thread; i < COLUMNS / 4u; i += stride) {
    let value = branch[token * BRANCH_STRIDE + i];
    squares += dot(value, value);
  }
  return inverseSqrt(total(squares, thread) / f32(COLUMNS) + BRANCH_EPSILON);
}

fn branch4(token: u32, i: u32, scale: f32) -> vec4f {
  return branch[token * BRANCH_STRIDE + i] * scale * branch_norm[i];
}
