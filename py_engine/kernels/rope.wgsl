// cos and sin of position * frequency from two short tables made in float64, by angle addition:
// WGSL's own sin and cos are too coarse, and one full table too large for long contexts.
const ROTARY8 = ROTARY_DIM / 8u;

// A head in pieces of eight: rotated pairs lie apart, what is not rotated lies together.
struct Eight { low: vec4f, high: vec4f }

fn low_of(i: u32) -> u32 { return select(2u * i, i, i < ROTARY8); }
fn high_of(i: u32) -> u32 { return select(2u * i + 1u, ROTARY8 + i, i < ROTARY8); }

fn turned(head: Head, i: u32, position: u32, statistics: vec2f) -> Eight {
  let low = normed(qkv[head.at + low_of(i)], head, low_of(i), statistics);
  let high = normed(qkv[head.at + high_of(i)], head, high_of(i), statistics);
  if (i >= ROTARY8) { return Eight(low, high); }
  let far = (position >> ROPE_FINE_BITS) * 2u * ROTARY8 + i;
  let near = (ROPE_COARSE + (position & ((1u << ROPE_FINE_BITS) - 1u))) * 2u * ROTARY8 + i;
  let c0 = rope[far];
  let s0 = rope[far + ROTARY8];
  let c1 = rope[near];
  let s1 = rope[near + ROTARY8];
  let cosine = c0 * c1 - s0 * s1;
  let sine = s0 * c1 + c0 * s1;
  return Eight(low * cosine - high * sine, high * cosine + low * sine);
}
