// weight_q4 without shifts, which adapters on the CPU make lane by lane: codes stay where they are in
// their word, and `arrange` divides x by the power of two that they are too large by. Both are exact.
const EVEN = vec4f(0x1p0, 0x1p8, 0x1p16, 0x1p24);
const ODD = vec4f(0x1p4, 0x1p12, 0x1p20, 0x1p28);
const OF_EVEN = vec4f(0x1p0, 0x1p-8, 0x1p-16, 0x1p-24);
const OF_ODD = vec4f(0x1p-4, 0x1p-12, 0x1p-20, 0x1p-28);

fn even_codes(word: u32, zero: f32) -> vec4f {
  return vec4f(vec4i(vec4u(word & 0xFu, word & 0xF00u, word & 0xF0000u, word & 0xF000000u))) - zero * EVEN;
}

fn odd_codes(word: u32, zero: f32) -> vec4f {
  let codes = vec3f(vec3i(vec3u(word & 0xF0u, word & 0xF000u, word & 0xF00000u)));
  return vec4f(codes, f32(word & 0xF0000000u)) - zero * ODD;
}

fn arrange(x: Block) -> Block {
  return Block(OF_EVEN * vec4f(x.a.xz, x.b.xz), OF_ODD * vec4f(x.a.yw, x.b.yw),
               OF_EVEN * vec4f(x.c.xz, x.d.xz), OF_ODD * vec4f(x.c.yw, x.d.yw),
               OF_EVEN * vec4f(x.e.xz, x.f.xz), OF_ODD * vec4f(x.e.yw, x.f.yw),
               OF_EVEN * vec4f(x.g.xz, x.h.xz), OF_ODD * vec4f(x.g.yw, x.h.yw));
}
