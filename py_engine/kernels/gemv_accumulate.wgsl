struct Sums { y: vec4f, squares: f32 }

// Four rows share every load of x.
fn accumulate(rows: vec4u, first: u32, stride: u32) -> Sums {
  let statistics = input_statistics(0u, first, stride);
  var sums = Sums(vec4f(0.0), 0.0);
  for (var block = first; block < BLOCKS; block += stride) {
    let raw = input_block(0u, block);
    sums.squares += square_sum(raw);
    let v = arrange(normed(raw, block, statistics));
    sums.y += vec4f(weight_scale(rows.x, block) * dot_blocks(weight_block(rows.x, block), v),
                    weight_scale(rows.y, block) * dot_blocks(weight_block(rows.y, block), v),
                    weight_scale(rows.z, block) * dot_blocks(weight_block(rows.z, block), v),
                    weight_scale(rows.w, block) * dot_blocks(weight_block(rows.w, block), v));
  }
  return sums;
}
