// cos and sin of position * frequency from two short tables made in float64, by angle addition:
// WGSL's own sin and cos are too coarse, and one full table too large for long contexts.
struct Rotation { cosine: vec4f, sine: vec4f }

fn rotation(position: u32, i: u32) -> Rotation {
  let far = (position >> ROPE_FINE_BITS) * (HEAD_DIM / 4u) + i;
  let near = (ROPE_COARSE + (position & ((1u << ROPE_FINE_BITS) - 1u))) * (HEAD_DIM / 4u) + i;
  let c0 = rope[far];
  let s0 = rope[far + HEAD_DIM / 8u];
  let c1 = rope[near];
  let s1 = rope[near + HEAD_DIM / 8u];
  return Rotation(c0 * c1 - s0 * s1, s0 * c1 + c0 * s1);
}
