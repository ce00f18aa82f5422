fn weight_block(row: u32, block: u32) -> Block {
  let i = (row * BLOCKS + block) * 8u;
  return Block(weights[i], weights[i + 1u], weights[i + 2u], weights[i + 3u],
               weights[i + 4u], weights[i + 5u], weights[i + 6u], weights[i + 7u]);
}

fn weight_scale(row: u32, block: u32) -> f32 { return 1.0; }

fn arrange(x: Block) -> Block { return x; }

fn weight_vec4(row: u32, column4: u32) -> vec4f { return weights[row * BLOCKS * 8u + column4]; }
