// Rows of the embedding table for the ids at `tokens[TOKEN_OFFSET...]`, one token per grid row.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
  if (id.x < COLUMNS / 4u) {
    let row = min(tokens[TOKEN_OFFSET + group.y], ROWS - 1u);
    let at = group.y * (COLUMNS / 4u) + id.x;
    let value = weight_vec4(row, id.x);
    if (ADD) {
      output[at] += value;
    } else {
      output[at] = value;
    }
  }
}
