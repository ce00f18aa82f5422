// The threads of a workgroup add up the row of the token that all of them work on.
var<workgroup> query_squares: array<f32, WORKGROUP>;
var<workgroup> key_squares: array<f32, WORKGROUP>;

fn prepare_norms(token: u32, thread: u32) {
  var sum = vec2f();
  for (var i = thread; i < N_HEADS * HEAD4; i += WORKGROUP) {
    let x = qkv[query_at(token, i / HEAD4) + i % HEAD4];
    sum.x += dot(x, x);
  }
  for (var i = thread; i < N_KV_HEADS * HEAD4; i += WORKGROUP) {
    let x = qkv[key_at(token, 0u) + i];
    sum.y += dot(x, x);
  }
  query_squares[thread] = sum.x;
  key_squares[thread] = sum.y;
  workgroupBarrier();
}

fn sum_of_squares(head: Head) -> f32 {
  var sum = 0.0;
  for (var i = 0u; i < WORKGROUP; i++) { sum += select(key_squares[i], query_squares[i], head.is_query); }
  return sum;
}
