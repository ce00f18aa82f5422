@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= SIZE || id.y >= image[IMAGE_HEIGHT]) { return; }
  let width = image[IMAGE_WIDTH];
  let bytes = vec4u(resized(span_of(id.x, width), id.y * width, 1u));
  output[id.y * SIZE + id.x] = bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}
