// Those of a chunk, or all that a batch has room for.
fn row_count() -> u32 {
  if (BATCH > 0u) { return BATCH; }
  return state[STATE_N_TOKENS];
}

fn normalize_row(token: u32, thread: u32, stride: u32) {
  begin_row(token, thread, stride);
  let statistics = row_statistics(token, thread, stride);
  for (var i = thread; i < COLUMNS / 4u; i += stride) {
    write4(token, i, (read4(token, i) - statistics.x) * statistics.y * norm[i] + norm_shift(i));
  }
}
