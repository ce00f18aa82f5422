fn weight_scale(row: u32, block: u32) -> f32 {
  let i = row * BLOCKS + block;
  let pair = unpack2x16float(scales[i >> 1u]);
  return select(pair.x, pair.y, (i & 1u) == 1u);
}
