// Behind a query lies its gate.
fn output_of(x: vec4f, token: u32, head: u32, i: u32) -> vec4f {
  return x / (1.0 + exp(-qkv[query_at(token, head) + HEAD4 + i]));
}
