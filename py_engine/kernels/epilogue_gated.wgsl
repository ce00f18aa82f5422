// Rows are gates, then ups: a quad takes two of each, so activation(gate) * up needs no second pass.
const PAIRS = ROWS / 2u;

fn quad_row(quad: u32, i: u32) -> u32 {
  return min(quad * 2u + (i & 1u), PAIRS - 1u) + select(0u, PAIRS, i >= 2u);
}

fn quad_rows(quad: u32) -> vec4u {
  let pair = min(quad * 2u + vec2u(0u, 1u), vec2u(PAIRS - 1u));
  return vec4u(pair, pair + PAIRS);
}

fn finish(token: u32, quad: u32, lane: u32, y: vec4f) {
  let pair = quad * 2u + lane;
  if (lane < 2u && pair < PAIRS) {
    let row = FIRST_OUTPUT + pair;
    let gate = activation(biased(row, y[lane]));
    store(token, row, gate * biased(N_OUTPUTS + row, y[lane + 2u]));
  }
}
