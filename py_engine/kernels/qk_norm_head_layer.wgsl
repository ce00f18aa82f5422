// LayerNorm of a head with its own weights; every thread finds the mean and the variance by itself.
fn head_statistics(head: Head) -> vec2f {
  var sum = vec4f();
  for (var i = head.at; i < head.at + HEAD4; i++) { sum += qkv[i]; }
  let mean = dot(sum, vec4f(1.0)) / f32(HEAD_DIM);
  var squares = 0.0;
  for (var i = head.at; i < head.at + HEAD4; i++) {
    let difference = qkv[i] - mean;
    squares += dot(difference, difference);
  }
  return vec2f(mean, inverseSqrt(squares / f32(HEAD_DIM) + EPSILON));
}

fn normed(x: vec4f, head: Head, i: u32, statistics: vec2f) -> vec4f {
  let at = head.number * HEAD4 + i;
  return (x - statistics.x) * statistics.y * select(k_norm[at], q_norm[at], head.is_query);
}
