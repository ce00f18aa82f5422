// No norm here needs the whole workgroup.
fn prepare_norms(token: u32, thread: u32) {}
