// Where heads lie, in fours: in a token's row of the fused projection, and of the output.
const HEAD4 = HEAD_DIM / 4u;
const HEAD8 = HEAD_DIM / 8u;
const N_REP = N_HEADS / N_KV_HEADS;
const ROW4 = QKV_STRIDE / 4u;

// A query or a key in the fused projection.
struct Head { at: u32, number: u32, is_query: bool }

fn query_at(token: u32, number: u32) -> u32 { return token * ROW4 + HEADS_PER_QUERY * number * HEAD4; }
fn key_at(token: u32, number: u32) -> u32 { return token * ROW4 + (HEADS_PER_QUERY * N_HEADS + number) * HEAD4; }
fn value_at(token: u32, number: u32) -> u32 { return key_at(token, N_KV_HEADS + number); }
fn output_at(token: u32, number: u32) -> u32 { return token * (OUTPUT_STRIDE / 4u) + number * HEAD4; }

fn head_of(token: u32, number: u32, is_query: bool) -> Head {
  return Head(select(key_at(token, number), query_at(token, number), is_query), number, is_query);
}

fn query_scale(position: u32) -> f32 {
  if (QUERY_SCALING_BETA == 0.0) { return SCALE; }
  return SCALE * (1.0 + QUERY_SCALING_BETA * log(1.0 + f32(position / QUERY_SCALING_CONTEXT)));
}
