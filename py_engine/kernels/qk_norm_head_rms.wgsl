// Every thread sums the squares of its whole head: few loads, all from the cache, and no barrier.
fn head_statistics(head: Head) -> vec2f {
  var sum = 0.0;
  for (var i = head.at; i < head.at + HEAD4; i++) { sum += dot(qkv[i], qkv[i]); }
  return vec2f(0.0, inverseSqrt(sum / f32(HEAD_DIM) + EPSILON));
}

fn normed(x: vec4f, head: Head, i: u32, statistics: vec2f) -> vec4f {
  return x * statistics.y * select(k_norm[i], q_norm[i], head.is_query);
}
