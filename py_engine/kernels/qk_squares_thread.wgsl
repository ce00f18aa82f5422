// A thread has a token of its own, and adds up its row by itself.
fn sum_of_squares(head: Head) -> f32 {
  let token = head.at / ROW4;
  var sum = 0.0;
  for (var i = 0u; i < select(N_KV_HEADS, N_HEADS, head.is_query) * HEAD4; i++) {
    let x = qkv[head_of(token, i / HEAD4, head.is_query).at + i % HEAD4];
    sum += dot(x, x);
  }
  return sum;
}
