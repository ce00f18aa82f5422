// What a team reads of x in f32. The codes' zero comes off as zero times the sum of x.
struct Input { v: Operand, sum: f32, squares: f32 }

fn input_product(words: vec4u, zero: f32, x: Input) -> f32 { return code_dot(words, x.v) - zero * x.sum; }
