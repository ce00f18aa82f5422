// Value = (code - zero) * scale, 8 codes of 4 bits a word. Even codes of a word unpack together, then
// odd ones, so a block keeps x in that order too.
fn even_codes(word: u32, zero: f32) -> vec4f { return vec4f(unpack4xU8(word & 0x0F0F0F0Fu)) - zero; }
fn odd_codes(word: u32, zero: f32) -> vec4f { return vec4f(unpack4xU8((word >> 4u) & 0x0F0F0F0Fu)) - zero; }

fn arrange(x: Block) -> Block {
  return Block(vec4f(x.a.xz, x.b.xz), vec4f(x.a.yw, x.b.yw), vec4f(x.c.xz, x.d.xz), vec4f(x.c.yw, x.d.yw),
               vec4f(x.e.xz, x.f.xz), vec4f(x.e.yw, x.f.yw), vec4f(x.g.xz, x.h.xz), vec4f(x.g.yw, x.h.yw));
}

fn weight_16(row: u32, i: u32) -> mat4x4f {
  let words = weights[row * BLOCKS + (i >> 1u)];
  let zero = weight_zero(row, i >> 1u);
  let pair = select(words.xy, words.zw, (i & 1u) == 1u);
  let p = even_codes(pair.x, zero);
  let q = odd_codes(pair.x, zero);
  let r = even_codes(pair.y, zero);
  let s = odd_codes(pair.y, zero);
  let codes = mat4x4f(vec4f(p.x, q.x, p.y, q.y), vec4f(p.z, q.z, p.w, q.w),
                      vec4f(r.x, s.x, r.y, s.y), vec4f(r.z, s.z, r.w, s.w));
  return weight_scale(row, i >> 1u) * codes;
}
