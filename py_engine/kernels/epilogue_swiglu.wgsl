// Rows are gate, then up: a quad takes two of each, so silu(gate) * up needs no second pass.
const PAIRS = ROWS / 2u;

fn quad_rows(quad: u32) -> vec4u {
  let pair = min(quad * 2u + vec2u(0u, 1u), vec2u(PAIRS - 1u));
  return vec4u(pair, pair + PAIRS);
}

fn finish(token: u32, quad: u32, lane: u32, y: vec4f) {
  let pair = quad * 2u + lane;
  if (lane < 2u && pair < PAIRS) {
    let gate = y[lane];
    output[token * PAIRS + pair] = gate / (1.0 + exp(-gate)) * y[lane + 2u];
  }
}
