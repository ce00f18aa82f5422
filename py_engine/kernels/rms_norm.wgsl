// One workgroup a token; each thread adds all partial sums itself, which spares a second barrier.
const COLUMNS4 = COLUMNS / 4u;
var<workgroup> partial: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let base = group.y * COLUMNS4;
  var squares = 0.0;
  for (var i = thread; i < COLUMNS4; i += WORKGROUP) { squares += dot(x[base + i], x[base + i]); }
  partial[thread] = squares;
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < WORKGROUP; i++) { sum += partial[i]; }
  let scale = inverseSqrt(sum / f32(COLUMNS) + EPSILON);
  for (var i = thread; i < COLUMNS4; i += WORKGROUP) { output[base + i] = x[base + i] * scale * norm[i]; }
}
