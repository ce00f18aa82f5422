// Halfs are stored two to a u32, because many adapters lack shader-f16.
fn pack_halfs(v: vec4f) -> vec2u { return vec2u(pack2x16float(v.xy), pack2x16float(v.zw)); }
fn unpack_halfs(v: vec2u) -> vec4f { return vec4f(unpack_pair(v.x), unpack_pair(v.y)); }
