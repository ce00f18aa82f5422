// Each thread adds all partial sums itself, which spares a barrier.
var<workgroup> partial_sums: array<f32, WORKGROUP>;

fn total(value: f32, thread: u32) -> f32 {
  partial_sums[thread] = value;
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < WORKGROUP; i++) { sum += partial_sums[i]; }
  workgroupBarrier();
  return sum;
}
