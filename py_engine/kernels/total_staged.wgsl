// Another total may follow, hence the second barrier.
fn total(value: f32, thread: u32) -> f32 {
  let sum = staged_total(value);
  workgroupBarrier();
  return sum;
}
