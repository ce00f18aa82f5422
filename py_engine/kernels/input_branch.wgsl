// x with what a branch adds to it, which no kernel has added yet.
var<private> branch_scales: array<f32, BATCH>;

fn input_statistics(token: u32, thread: u32, stride: u32) -> vec2f {
  branch_scales[token] = branch_scale(token, thread, stride);
  return vec2f(0.0);
}

fn input4(token: u32, i: u32) -> vec4f {
  return x[token * INPUT_STRIDE + i] + branch4(token, i, branch_scales[token]);
}

fn input_block(token: u32, block: u32) -> Block {
  let i = block * 8u;
  return Block(input4(token, i), input4(token, i + 1u), input4(token, i + 2u), input4(token, i + 3u),
               input4(token, i + 4u), input4(token, i + 5u), input4(token, i + 6u), input4(token, i + 7u));
}
