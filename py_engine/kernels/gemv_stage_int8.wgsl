var<workgroup> staged_low: array<vec4u, BLOCKS>;
var<workgroup> staged_high: array<vec4u, BLOCKS>;
var<workgroup> staged_scales: array<f32, BLOCKS>;
var<workgroup> staged_sums: array<f32, BLOCKS>;

fn stage(block: u32, v: Operand) {
  staged_low[block] = v.low;
  staged_high[block] = v.high;
  staged_scales[block] = v.scale;
  staged_sums[block] = v.sum;
}

fn read_input(block: u32) -> Input {
  return Input(Operand(staged_low[block], staged_high[block], staged_scales[block], staged_sums[block]), 0.0);
}
