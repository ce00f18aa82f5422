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
  // One sum a row, each over the four tokens: no index into a vector inside the loop.
  var a = vec4f(0.0);
  var b = vec4f(0.0);
  var c = vec4f(0.0);
  var d = vec4f(0.0);
  for (var block = lane; block < BLOCKS; block += min(size, WORKGROUP)) {
    let x0 = arrange(input_block(tokens.x, block));
    let x1 = arrange(input_block(tokens.y, block));
    let x2 = arrange(input_block(tokens.z, block));
    let x3 = arrange(input_block(tokens.w, block));
    a += weight_scale(rows.x, block) * four_dots(weight_block(rows.x, block), x0, x1, x2, x3);
    b += weight_scale(rows.y, block) * four_dots(weight_block(rows.y, block), x0, x1, x2, x3);
    c += weight_scale(rows.z, block) * four_dots(weight_block(rows.z, block), x0, x1, x2, x3);
    d += weight_scale(rows.w, block) * four_dots(weight_block(rows.w, block), x0, x1, x2, x3);
  }
  let by_token = transpose(mat4x4f(subgroupAdd(a), subgroupAdd(b), subgroupAdd(c), subgroupAdd(d)));
  if (lane < 4u) {
    finish(token, quad, lane, by_token[0]);
    if (token + 1u < n_tokens) { finish(token + 1u, quad, lane, by_token[1]); }
    if (token + 2u < n_tokens) { finish(token + 2u, quad, lane, by_token[2]); }
    if (token + 3u < n_tokens) { finish(token + 3u, quad, lane, by_token[3]); }
  }
}
