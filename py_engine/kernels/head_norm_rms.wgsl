// Every thread sums the squares of its whole head: few loads, all from the cache, and no barrier.
fn inverse_head_rms(first: u32) -> f32 {
  var sum = 0.0;
  for (var i = first; i < first + HEAD4; i++) { sum += dot(qkv[i], qkv[i]); }
  return inverseSqrt(sum / f32(HEAD_DIM) + EPSILON);
}

fn normed_head(x: vec4f, i: u32, inverse_rms: f32, is_query: bool) -> vec4f {
  return x * inverse_rms * select(k_norm[i], q_norm[i], is_query);
}
