const CHANNEL = PATCH * PATCH;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  // A last row and column that fill no patch are left away.
  if (id.x >= SIDE * PATCH || id.y >= SIDE * PATCH) { return; }
  let value = resized(span_of(id.y, image[IMAGE_HEIGHT]), id.x, SIZE).xyz;
  let normal = (value * RESCALE - vec3f(MEAN_R, MEAN_G, MEAN_B)) / vec3f(STD_R, STD_G, STD_B);
  let patch_number = (id.y / PATCH) * SIDE + id.x / PATCH;
  let at = patch_number * COLUMNS + (id.y % PATCH) * PATCH + id.x % PATCH;
  output[at] = normal.x;
  output[at + CHANNEL] = normal.y;
  output[at + 2u * CHANNEL] = normal.z;
}
