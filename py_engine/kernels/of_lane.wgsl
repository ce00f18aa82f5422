// What lane i of the first four keeps of what all of them have: number i.
fn of_lane(lane: u32, v: vec4f) -> f32 {
  return select(select(v.x, v.y, lane == 1u), select(v.z, v.w, lane == 3u), lane >= 2u);
}
