// Forbids every token whose bit in the mask is 0.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let token = id.x;
  if (token < VOCABULARY && ((mask[token / 32u] >> (token % 32u)) & 1u) == 0u) {
    logits[token] = LOWEST;
  }
}
