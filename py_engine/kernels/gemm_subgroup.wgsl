// One subgroup for four rows and four tokens, in registers: each weight is unpacked once, and the rows
// share the loads of x.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(num_subgroups) n_subgroups: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_size) size: u32) {
  let quad = group.x * n_subgroups + subgroup;
  if (quad >= QUADS) { return; }
  let n_tokens = state[STATE_N_TOKENS];
  let token = group.y * 4u;
  let tokens = min(token + vec4u(0u, 1u, 2u, 3u), vec4u(n_tokens - 1u));
  // One sum a row, each over the four tokens. Loops over rows and tokens keep the kernel small: written
  // out it took four times as long to compile.
  var sums: array<vec4f, 4>;
  for (var block = lane; block < BLOCKS; block += min(size, WORKGROUP)) {
    var of_tokens: array<Block, 4>;
    for (var t = 0u; t < 4u; t++) { of_tokens[t] = arrange(input_block(tokens[t], block)); }
    for (var i = 0u; i < 4u; i++) {
      let row = quad_row(quad, i);
      let w = weight_block(row, block);
      sums[i] += weight_scale(row, block) * vec4f(dot_blocks(w, of_tokens[0]), dot_blocks(w, of_tokens[1]),
                                                  dot_blocks(w, of_tokens[2]), dot_blocks(w, of_tokens[3]));
    }
  }
  for (var i = 0u; i < 4u; i++) { sums[i] = subgroupAdd(sums[i]); }
  if (lane >= 4u) { return; }
  for (var t = 0u; t < min(4u, n_tokens - token); t++) {
    finish(token + t, quad, lane, vec4f(sums[0][t], sums[1][t], sums[2][t], sums[3][t]));
  }
}
