fn begin_row(token: u32, thread: u32, stride: u32) {}
