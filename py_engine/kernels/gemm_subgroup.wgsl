// One subgroup for four rows of four tokens, in registers: each weight is unpacked once.
fn four_dots(w: Block, x0: Block, x1: Block, x2: Block, x3: Block) -> vec4f {
  return vec4f(dot_blocks(w, x0), dot_blocks(w, x1), dot_blocks(w, x2), dot_blocks(w, x3));
}

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
  // One sum a row, each over the four tokens. The loop over rows keeps the kernel small: written out it
  // took twice as long to compile.
  var sums: array<vec4f, 4>;
  for (var block = lane; block < BLOCKS; block += min(size, WORKGROUP)) {
    let x0 = arrange(input_block(tokens.x, block));
    let x1 = arrange(input_block(tokens.y, block));
    let x2 = arrange(input_block(tokens.z, block));
    let x3 = arrange(input_block(tokens.w, block));
    for (var i = 0u; i < 4u; i++) {
      sums[i] += weight_scale(rows[i], block) * four_dots(weight_block(rows[i], block), x0, x1, x2, x3);
    }
  }
  let by_token = transpose(mat4x4f(subgroupAdd(sums[0]), subgroupAdd(sums[1]), subgroupAdd(sums[2]), subgroupAdd(sums[3])));
  if (lane < 4u) {
    for (var i = 0u; i < min(4u, n_tokens - token); i++) { finish(token + i, quad, lane, by_token[i]); }
  }
}
