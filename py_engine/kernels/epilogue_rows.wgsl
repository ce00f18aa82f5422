fn quad_rows(quad: u32) -> vec4u { return min(quad * 4u + vec4u(0u, 1u, 2u, 3u), vec4u(ROWS - 1u)); }

// Adding in place is safe: every element has one owner, and the product reads another buffer.
fn finish(token: u32, quad: u32, lane: u32, y: vec4f) {
  let row = quad * 4u + lane;
  if (row >= ROWS) { return; }
  let value = row_value(row, y[lane]);
  if (RESIDUAL) {
    output[token * ROWS + row] += value;
  } else {
    output[token * ROWS + row] = value;
  }
}
