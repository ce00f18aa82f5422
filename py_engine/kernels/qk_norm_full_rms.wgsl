// RMSNorm over all queries, or all keys, of a token.
fn head_statistics(head: Head) -> vec2f {
  let size = select(N_KV_HEADS, N_HEADS, head.is_query) * HEAD_DIM;
  return vec2f(0.0, inverseSqrt(sum_of_squares(head) / f32(size) + EPSILON));
}

fn normed(x: vec4f, head: Head, i: u32, statistics: vec2f) -> vec4f {
  let at = head.number * HEAD4 + i;
  return x * statistics.y * select(k_norm[at], q_norm[at], head.is_query);
}
