// SOFT_CAP * tanh(product / SOFT_CAP). WGSL's tanh may be off by 1e-5, and overflow on some GPUs.
fn score_of(product: f32) -> f32 {
  return SOFT_CAP - 2.0 * SOFT_CAP / (exp(2.0 * clamp(product / SOFT_CAP, -10.0, 10.0)) + 1.0);
}
