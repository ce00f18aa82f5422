struct Sums { y: vec4f, squares: f32 }

// Four rows share every load of x.
fn accumulate(rows: vec4u, first: u32, stride: u32) -> Sums {
  let statistics = input_statistics(0u, first, stride);
  var sums = Sums(vec4f(0.0), 0.0);
  for (var block = first; block < BLOCKS; block += stride) {
    let raw = input_block(0u, block);
    sums.squares += square_sum(raw);
    let v = operand(normed(raw, block, statistics));
    sums.y += vec4f(weight_scale(rows.x, block) * product(weights_at(rows.x, block), v),
                    weight_scale(rows.y, block) * product(weights_at(rows.y, block), v),
                    weight_scale(rows.z, block) * product(weights_at(rows.z, block), v),
                    weight_scale(rows.w, block) * product(weights_at(rows.w, block), v));
  }
  return sums;
}
