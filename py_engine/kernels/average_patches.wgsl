const COLUMNS4 = COLUMNS / 4u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= COLUMNS4) { return; }
  let across = SIDE / POOLED;
  let corner = (id.y / across) * POOLED * SIDE + (id.y % across) * POOLED;
  var sum = vec4f(0.0);
  for (var i = 0u; i < POOLED * POOLED; i++) {
    sum += x[(corner + (i / POOLED) * SIDE + i % POOLED) * COLUMNS4 + id.x];
  }
  output[id.y * COLUMNS4 + id.x] = sum / f32(POOLED * POOLED);
}
