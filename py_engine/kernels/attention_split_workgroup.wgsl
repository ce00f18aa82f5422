// Without subgroups a team is one thread.
fn team_max(value: f32) -> f32 { return value; }
fn team_sum(value: f32) -> f32 { return value; }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  attend(group, thread, thread, 0u);
}
