// The ids at `ids[ID_OFFSET...]`, or the positions that count up from the one there.
fn wanted_row(token: u32) -> u32 {
  if (BY_POSITION) { return ids[ID_OFFSET] + token; }
  return ids[ID_OFFSET + token];
}
