// GELU's tanh form, x (1 + tanh u) / 2, as x sigmoid(2u), which does not cancel where x is negative.
// The bound keeps exp finite; x sigmoid(-80) is nothing beside any sum it goes into.
fn activation(x: f32) -> f32 {
  let u = 0.7978845608 * (x + 0.044715 * x * x * x);
  return x / (1.0 + exp(min(-2.0 * u, 80.0)));
}
