// The head of a block of Q4_K and Q5_K: d and dmin, then 12 bytes with 6-bit scales and minima of
// the eight times 32 columns. Returns d * scale and dmin * minimum.
fn scale_and_minimum(head: vec4u, part: u32) -> vec2f {
  let s = head.yzw >> vec3u((part & 3u) * 8u);
  var pair = s.xy & vec2u(63u);
  if (part >= 4u) { pair = (vec2u(s.z, s.z >> 4u) & vec2u(15u)) | ((s.xy >> vec2u(2u)) & vec2u(48u)); }
  return unpack2x16float(head.x) * vec2f(pair);
}
