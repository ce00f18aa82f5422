fn weight_16(row: u32, i: u32) -> mat4x4f {
  let at = row * BLOCKS * 4u + i * 2u;
  let p = weights[at];
  let q = weights[at + 1u];
  return mat4x4f(unpack_16bit(p.xy), unpack_16bit(p.zw), unpack_16bit(q.xy), unpack_16bit(q.zw));
}
