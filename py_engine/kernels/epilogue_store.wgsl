// Adding in place is safe: every element has one owner, and the product reads another buffer.
fn store(token: u32, row: u32, y: f32) {
  let at = token * OUTPUT_STRIDE + row;
  var value = y;
  // Beyond 10, tanh is 1 in f32, and some drivers make NaN of it.
  if (SOFT_CAP > 0.0) { value = SOFT_CAP * tanh(clamp(y / SOFT_CAP, -10.0, 10.0)); }
  if (RESIDUAL) {
    output[at] += value;
  } else {
    output[at] = value;
  }
}
