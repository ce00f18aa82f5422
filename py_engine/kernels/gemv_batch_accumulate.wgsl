// Four rows for BATCH tokens: each weight is unpacked once, and tokens pass by one after the other. A
// token's sums are the same to the last bit as in gemv_accumulate.
struct BatchSums { y: array<vec4f, BATCH>, squares: array<f32, BATCH> }

fn accumulate(quad: u32, first: u32, stride: u32) -> BatchSums {
  let rows = quad_rows(quad);
  var statistics: array<vec2f, BATCH>;
  for (var t = 0u; t < BATCH; t++) { statistics[t] = input_statistics(t, first, stride); }
  var sums: BatchSums;
  for (var block = first; block < BLOCKS; block += stride) {
    let w0 = weight_block(rows.x, block);
    let w1 = weight_block(rows.y, block);
    let w2 = weight_block(rows.z, block);
    let w3 = weight_block(rows.w, block);
    let scales = vec4f(weight_scale(rows.x, block), weight_scale(rows.y, block),
                       weight_scale(rows.z, block), weight_scale(rows.w, block));
    for (var t = 0u; t < BATCH; t++) {
      let raw = input_block(t, block);
      sums.squares[t] += square_sum(raw);
      let v = arrange(normed(raw, block, statistics[t]));
      sums.y[t] += scales * vec4f(dot_blocks(w0, v), dot_blocks(w1, v), dot_blocks(w2, v), dot_blocks(w3, v));
    }
  }
  return sums;
}
