// A team is a subgroup, of exactly LANES.
fn team_max(value: f32) -> f32 { return subgroupMax(value); }
fn team_sum(value: f32) -> f32 { return subgroupAdd(value); }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
  attend(group, thread, subgroup, lane);
}
