fn normalize_row(token: u32, thread: u32, stride: u32) {
  let statistics = row_statistics(token, thread, stride);
  for (var i = thread; i < COLUMNS / 4u; i += stride) {
    write4(token, i, (read4(token, i) - statistics.x) * statistics.y * norm[i] + norm_shift(i));
  }
}
