// An earlier branch's output comes along: the residual gets what both add, in their order.
var<private> earlier_scale: f32;
fn begin_row(token: u32, thread: u32, stride: u32) { earlier_scale = branch_scale(token, thread, stride); }
fn read4(token: u32, i: u32) -> vec4f { return x[token * (ROW_STRIDE / 4u) + i]; }
fn write4(token: u32, i: u32, value: vec4f) {
  let at = token * (ROW_STRIDE / 4u) + i;
  output[at] = output[at] + branch4(token, i, earlier_scale) + value;
}
