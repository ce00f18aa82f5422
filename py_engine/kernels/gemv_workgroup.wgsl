// One workgroup for four rows, with one barrier: for adapters without subgroups.
var<workgroup> partial_y: array<vec4f, WORKGROUP>;
var<workgroup> partial_squares: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let quad = group.y * GROUPS_X + group.x;
  if (quad >= QUADS) { return; }
  let sums = accumulate(quad_rows(quad), thread, WORKGROUP);
  partial_y[thread] = sums.y;
  partial_squares[thread] = sums.squares;
  workgroupBarrier();
  if (thread < 4u) {
    var y = vec4f(0.0);
    var squares = 0.0;
    for (var i = 0u; i < WORKGROUP; i++) {
      y += partial_y[i];
      squares += partial_squares[i];
    }
    finish(0u, quad, thread, y * inverse_rms(squares));
  }
}
