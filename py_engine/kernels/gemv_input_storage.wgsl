// Every team reads x, and folds the norm in, by itself.
fn prepare_input(thread: u32, subgroup: u32) -> f32 { return 0.0; }

fn read_input(block: u32) -> Input {
  let raw = input_block(0u, block);
  return Input(operand(normed(raw, block, vec2f())), square_sum(raw));
}

fn input_squares(mine: f32) -> f32 { return subgroupAdd(mine); }
