// A head in pieces of eight, as it is.
struct Eight { low: vec4f, high: vec4f }

fn low_of(i: u32) -> u32 { return 2u * i; }
fn high_of(i: u32) -> u32 { return 2u * i + 1u; }

fn turned(head: Head, i: u32, position: u32, statistics: vec2f) -> Eight {
  let at = head.at + 2u * i;
  return Eight(normed(qkv[at], head, 2u * i, statistics), normed(qkv[at + 1u], head, 2u * i + 1u, statistics));
}
