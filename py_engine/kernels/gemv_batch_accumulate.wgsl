// Four rows for BATCH tokens: each weight is unpacked once, and tokens pass by one after the other. A
// token's sums are the same to the last bit as in gemv_accumulate.
struct BatchSums { y: array<vec4f, BATCH>, squares: array<f32, BATCH> }

fn accumulate(quad: u32, first: u32, stride: u32) -> BatchSums {
  let rows = quad_rows(quad);
  var statistics: array<vec2f, BATCH>;
  for (var t = 0u; t < BATCH; t++) { statistics[t] = input_statistics(t, first, stride); }
  var sums: BatchSums;
  for (var block = first; block < BLOCKS; block += stride) {
    let w0 = weights_at(rows.x, block);
    let w1 = weights_at(rows.y, block);
    let w2 = weights_at(rows.z, block);
    let w3 = weights_at(rows.w, block);
    let scales = vec4f(weight_scale(rows.x, block), weight_scale(rows.y, block),
                       weight_scale(rows.z, block), weight_scale(rows.w, block));
    for (var t = 0u; t < BATCH; t++) {
      let raw = input_block(t, block);
      sums.squares[t] += square_sum(raw);
      let v = operand(normed(raw, block, statistics[t]));
      sums.y[t] += scales * vec4f(product(w0, v), product(w1, v), product(w2, v), product(w3, v));
    }
  }
  return sums;
}
