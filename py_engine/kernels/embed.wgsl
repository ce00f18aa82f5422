// Rows of the embedding table, one token per grid row. A part of a table has ROWS rows from FIRST_ROW
// on and writes those alone. A thread has 16 columns.
fn store(at: u32, value: vec4f) {
  if (ADD) {
    output[at] += value;
  } else {
    output[at] = value;
  }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
  if (id.x >= COLUMNS / 16u) { return; }
  // Below the part, this wraps to far beyond ROWS.
  let row = min(wanted_row(group.y), TABLE_ROWS - 1u) - FIRST_ROW;
  if (row >= ROWS) { return; }
  let values = weight_16(row, id.x) * SCALE;
  let at = (group.y * (ROW_STRIDE / 16u) + id.x) * 4u;
  store(at, values[0]);
  store(at + 1u, values[1]);
  store(at + 2u, values[2]);
  store(at + 3u, values[3]);
}
