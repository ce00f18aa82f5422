// One workgroup for a quad of rows, with one barrier: for adapters without subgroups.
var<workgroup> partial_y: array<vec4f, BATCH * WORKGROUP>;
var<workgroup> partial_squares: array<f32, BATCH * WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let quad = group.y * GROUPS_X + group.x;
  if (quad >= QUADS) { return; }
  let sums = accumulate(quad, thread, WORKGROUP);
  for (var t = 0u; t < BATCH; t++) {
    partial_y[t * WORKGROUP + thread] = sums.y[t];
    partial_squares[t * WORKGROUP + thread] = sums.squares[t];
  }
  workgroupBarrier();
  let t = thread / 4u;
  if (t < BATCH) {
    var y = vec4f();
    var squares = 0.0;
    for (var i = 0u; i < WORKGROUP; i++) {
      y += partial_y[t * WORKGROUP + i];
      squares += partial_squares[t * WORKGROUP + i];
    }
    finish(t, quad, thread % 4u, y * inverse_rms(squares));
  }
}
