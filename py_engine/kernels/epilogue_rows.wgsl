fn quad_row(quad: u32, i: u32) -> u32 { return min(quad * 4u + i, ROWS - 1u); }
fn quad_rows(quad: u32) -> vec4u { return min(quad * 4u + vec4u(0u, 1u, 2u, 3u), vec4u(ROWS - 1u)); }

fn finish(token: u32, quad: u32, lane: u32, y: vec4f) {
  let row = quad * 4u + lane;
  if (row >= ROWS) { return; }
  store(token, FIRST_OUTPUT + row, activation(biased(FIRST_OUTPUT + row, y[lane])));
}
