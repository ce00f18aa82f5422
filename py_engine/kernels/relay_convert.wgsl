// Two columns of a row a thread.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let columns = piece[PIECE_COLUMNS];
  let pairs = (columns + 1u) / 2u;
  let unit = unit_of(group, thread);
  let row = unit / pairs;
  if (row >= piece[PIECE_ROWS]) { return; }
  let to = target_row(row);
  if (!is_kept(to)) { return; }
  let column = (unit % pairs) * 2u;
  let has_second = column + 1u < columns;
  let first = encoded(element(row, column));
  var second = 0u;
  if (has_second) { second = encoded(element(row, column + 1u)); }
  write_pair(to * piece[PIECE_WIDTH] + column, has_second, first, second);
}
