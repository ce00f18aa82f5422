// One workgroup a token; each thread adds all partial sums itself, which spares a second barrier.
var<workgroup> partial: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  partial[thread] = square_sum(group.y, thread, WORKGROUP);
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < WORKGROUP; i++) { sum += partial[i]; }
  scale_row(group.y, thread, WORKGROUP, sum);
}
