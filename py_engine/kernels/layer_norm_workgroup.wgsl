// One workgroup a token; each thread adds all partial sums itself, which spares further barriers.
var<workgroup> partial_values: array<f32, WORKGROUP>;
var<workgroup> partial_squares: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  partial_values[thread] = value_sum(group.y, thread, WORKGROUP);
  workgroupBarrier();
  var mean = 0.0;
  for (var i = 0u; i < WORKGROUP; i++) { mean += partial_values[i]; }
  mean /= f32(COLUMNS);
  partial_squares[thread] = square_sum(group.y, thread, WORKGROUP, mean);
  workgroupBarrier();
  var squares = 0.0;
  for (var i = 0u; i < WORKGROUP; i++) { squares += partial_squares[i]; }
  normalize_row(group.y, thread, WORKGROUP, mean, squares);
}
