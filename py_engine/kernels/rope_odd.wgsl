// RoPE where half of the rotated elements are no whole fours: element by element. The tables of
// cos and sin are those of rope.wgsl.
const HALF = ROTARY_DIM / 2u;

// A head in pieces of eight.
struct Eight { low: vec4f, high: vec4f }

fn low_of(i: u32) -> u32 { return 2u * i; }
fn high_of(i: u32) -> u32 { return 2u * i + 1u; }

fn element(head: Head, d: u32, statistics: vec2f) -> f32 {
  return normed(qkv[head.at + d / 4u], head, d / 4u, statistics)[d % 4u];
}

fn turned_element(head: Head, d: u32, position: u32, statistics: vec2f) -> f32 {
  let x = element(head, d, statistics);
  if (d >= ROTARY_DIM) { return x; }
  let is_low = d < HALF;
  let partner = element(head, select(d - HALF, d + HALF, is_low), statistics);
  let far = (position >> ROPE_FINE_BITS) * ROTARY_DIM + d % HALF;
  let near = (ROPE_COARSE + (position & ((1u << ROPE_FINE_BITS) - 1u))) * ROTARY_DIM + d % HALF;
  let cosine = rope[far] * rope[near] - rope[far + HALF] * rope[near + HALF];
  let sine = rope[far + HALF] * rope[near] + rope[far] * rope[near + HALF];
  return x * cosine + partner * select(sine, -sine, is_low);
}

fn turned_four(head: Head, d: u32, position: u32, statistics: vec2f) -> vec4f {
  return vec4f(turned_element(head, d, position, statistics), turned_element(head, d + 1u, position, statistics),
               turned_element(head, d + 2u, position, statistics), turned_element(head, d + 3u, position, statistics));
}

fn turned(head: Head, i: u32, position: u32, statistics: vec2f) -> Eight {
  return Eight(turned_four(head, 8u * i, position, statistics), turned_four(head, 8u * i + 4u, position, statistics));
}
