// GELU as max(x, 0) - |x| erfc(|x| / sqrt 2) / 2, which does not cancel where x is negative. erfc by
// Abramowitz and Stegun 7.1.26, to 1.5e-7.
fn activation(x: f32) -> f32 {
  let z = abs(x) * 0.70710678;
  let t = 1.0 / (1.0 + 0.3275911 * z);
  let polynomial = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return max(x, 0.0) - 0.5 * abs(x) * polynomial * exp(-z * z);
}
