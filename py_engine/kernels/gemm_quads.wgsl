// One subgroup for the rows of many quads and eight tokens, which share every load of x and of a weight
// (quads_of_tokens.wgsl).
const TOKENS = 8u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(num_subgroups) n_subgroups: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_size) size: u32) {
  let first_quad = (group.x * n_subgroups + subgroup) * QUADS_EACH;
  if (first_quad >= QUADS) { return; }
  let n_tokens = state[STATE_N_TOKENS];
  let token = group.y * TOKENS;
  let stride = min(size, WORKGROUP);
  for (var first = 0u; first < BLOCKS; first += stride) {
    let is_there = first + lane < BLOCKS;
    let block = min(first + lane, BLOCKS - 1u);
    var t = 0u;
    loop {
      x_of[t] = operand(input_block(min(token + t, n_tokens - 1u), block));
      continuing { t++; break if t == TOKENS; }
    }
    add_block(first_quad, block, is_there, lane);
  }
  if (lane >= 4u) { return; }
  for (var half = 0u; half < 2u && token + 4u * half + lane < n_tokens; half++) {
    for (var q = 0u; q < QUADS_EACH && first_quad + q < QUADS; q++) {
      let y = quad_sums(q, half);
      for (var i = 0u; i < 4u; i++) { finish(token + 4u * half + lane, first_quad + q, i, y); }
    }
  }
}
