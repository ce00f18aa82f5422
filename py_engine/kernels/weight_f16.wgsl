fn weight_block(row: u32, block: u32) -> Block {
  let i = (row * BLOCKS + block) * 4u;
  let p = weights[i];
  let q = weights[i + 1u];
  let r = weights[i + 2u];
  let s = weights[i + 3u];
  return Block(unpack_halfs(p.xy), unpack_halfs(p.zw), unpack_halfs(q.xy), unpack_halfs(q.zw),
               unpack_halfs(r.xy), unpack_halfs(r.zw), unpack_halfs(s.xy), unpack_halfs(s.zw));
}

fn weight_scale(row: u32, block: u32) -> f32 { return 1.0; }

fn arrange(x: Block) -> Block { return x; }

fn weight_vec4(row: u32, column4: u32) -> vec4f {
  let words = weights[row * BLOCKS * 4u + (column4 >> 1u)];
  return unpack_halfs(select(words.xy, words.zw, (column4 & 1u) == 1u));
}
