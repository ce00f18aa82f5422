// A piece of a tensor, from `source` into its place in the target. Rows outside of the kept ones are
// dropped; those before the target's first wrap around to numbers far beyond its last.
fn target_row(row: u32) -> u32 {
  var wanted = piece[PIECE_FIRST_ROW] + row;
  let head = piece[PIECE_ROPE_PAIRS];
  if (head > 0u) {
    let i = wanted % head;
    wanted = wanted - i + (i >> 1u) + (i & 1u) * (head >> 1u);
  }
  return wanted + piece[PIECE_TO_ROW];
}

fn unit_of(group: vec3u, thread: u32) -> u32 {
  return (group.y * GROUPS_X + group.x) * WORKGROUP + thread;
}

fn is_kept(row: u32) -> bool { return row >= piece[PIECE_KEEP_FIRST] && row < piece[PIECE_KEEP_END]; }
