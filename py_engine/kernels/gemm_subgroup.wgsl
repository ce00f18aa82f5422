// One subgroup for four rows of four tokens, in registers: each weight is unpacked once.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(num_subgroups) n_subgroups: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_size) size: u32) {
  let quad = group.x * n_subgroups + subgroup;
  if (quad >= QUADS) { return; }
  let rows = quad_rows(quad);
  let n_tokens = state[STATE_N_TOKENS];
  let token = group.y * 4u;
  let tokens = min(token + vec4u(0u, 1u, 2u, 3u), vec4u(n_tokens - 1u));
  var y0 = vec4f(0.0);
  var y1 = vec4f(0.0);
  var y2 = vec4f(0.0);
  var y3 = vec4f(0.0);
  for (var block = lane; block < BLOCKS; block += size) {
    let x0 = arrange(input_block(tokens.x, block));
    let x1 = arrange(input_block(tokens.y, block));
    let x2 = arrange(input_block(tokens.z, block));
    let x3 = arrange(input_block(tokens.w, block));
    for (var i = 0u; i < 4u; i++) {
      let w = weight_block(rows[i], block);
      let scale = weight_scale(rows[i], block);
      y0[i] += scale * dot_blocks(w, x0);
      y1[i] += scale * dot_blocks(w, x1);
      y2[i] += scale * dot_blocks(w, x2);
      y3[i] += scale * dot_blocks(w, x3);
    }
  }
  y0 = subgroupAdd(y0);
  y1 = subgroupAdd(y1);
  y2 = subgroupAdd(y2);
  y3 = subgroupAdd(y3);
  if (lane < 4u) {
    finish(token, quad, lane, y0);
    if (token + 1u < n_tokens) { finish(token + 1u, quad, lane, y1); }
    if (token + 2u < n_tokens) { finish(token + 2u, quad, lane, y2); }
    if (token + 3u < n_tokens) { finish(token + 3u, quad, lane, y3); }
  }
}
