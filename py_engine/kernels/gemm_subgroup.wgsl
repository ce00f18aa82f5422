// One subgroup for the rows of QUADS_EACH quads and four tokens, in registers: each weight is unpacked
// once, and the rows share the loads of x.
const ROWS_EACH = 4u * QUADS_EACH;

fn four_dots(w: Block, x0: Block, x1: Block, x2: Block, x3: Block) -> vec4f {
  return vec4f(dot_blocks(w, x0), dot_blocks(w, x1), dot_blocks(w, x2), dot_blocks(w, x3));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(num_subgroups) n_subgroups: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_size) size: u32) {
  let first_quad = (group.x * n_subgroups + subgroup) * QUADS_EACH;
  if (first_quad >= QUADS) { return; }
  var rows: array<u32, ROWS_EACH>;
  for (var q = 0u; q < QUADS_EACH; q++) {
    let of_quad = quad_rows(first_quad + q);
    for (var i = 0u; i < 4u; i++) { rows[4u * q + i] = of_quad[i]; }
  }
  let n_tokens = state[STATE_N_TOKENS];
  let token = group.y * 4u;
  let tokens = min(token + vec4u(0u, 1u, 2u, 3u), vec4u(n_tokens - 1u));
  // One sum a row, each over the four tokens. The loop over rows keeps the kernel small: written out it
  // took twice as long to compile.
  var sums: array<vec4f, ROWS_EACH>;
  for (var block = lane; block < BLOCKS; block += min(size, WORKGROUP)) {
    let x0 = arrange(input_block(tokens.x, block));
    let x1 = arrange(input_block(tokens.y, block));
    let x2 = arrange(input_block(tokens.z, block));
    let x3 = arrange(input_block(tokens.w, block));
    for (var i = 0u; i < ROWS_EACH; i++) {
      sums[i] += weight_scale(rows[i], block) * four_dots(weight_block(rows[i], block), x0, x1, x2, x3);
    }
  }
  for (var q = 0u; q < QUADS_EACH; q++) {
    let r = 4u * q;
    let by_token = transpose(mat4x4f(subgroupAdd(sums[r]), subgroupAdd(sums[r + 1u]),
                                     subgroupAdd(sums[r + 2u]), subgroupAdd(sums[r + 3u])));
    if (lane < 4u && first_quad + q < QUADS) {
      for (var i = 0u; i < min(4u, n_tokens - token); i++) {
        finish(token + i, first_quad + q, lane, by_token[i]);
      }
    }
  }
}
