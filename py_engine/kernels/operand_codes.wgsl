// x in f32, in the order in which 4-bit codes unpack. Their zero comes off as zero times the sum of x.
struct Operand { v: Block, sum: f32 }

fn block_sum(x: Block) -> f32 { return dot(x.a + x.b + x.c + x.d + x.e + x.f + x.g + x.h, vec4f(1.0)); }
fn operand(x: Block) -> Operand { return Operand(arrange(x), block_sum(x)); }
