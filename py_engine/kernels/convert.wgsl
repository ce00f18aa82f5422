// Two 16-bit values at a time to f32; threads stride, because tensors outgrow the grid.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n_groups: vec3u) {
  for (var i = id.x; i < PAIRS; i += n_groups.x * WORKGROUP) { output[i] = to_f32(source[i]); }
}
