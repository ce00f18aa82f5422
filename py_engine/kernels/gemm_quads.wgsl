// One subgroup for the rows of many quads and eight tokens, which share every load of x and of a weight:
// for adapters on the CPU, which load lane by lane. They also take a place in an array lane by lane
// unless it is a constant, so a block's sums are brought together at once: lane i has tokens i and
// i + 4, two numbers a row. Arrays of a function would be zeroed element by element, which takes long to
// compile.
const ROWS_EACH = 4u * QUADS_EACH;

var<private> sums: array<vec2f, ROWS_EACH>;
var<private> x_of: array<Operand, 8>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(num_subgroups) n_subgroups: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_size) size: u32) {
  let first_quad = (group.x * n_subgroups + subgroup) * QUADS_EACH;
  if (first_quad >= QUADS) { return; }
  let n_tokens = state[STATE_N_TOKENS];
  let token = group.y * 8u;
  let stride = min(size, WORKGROUP);
  for (var first = 0u; first < BLOCKS; first += stride) {
    let is_there = first + lane < BLOCKS;
    let block = min(first + lane, BLOCKS - 1u);
    let column = column_of(block);
    var t = 0u;
    loop {
      x_of[t] = operand(input_block(min(token + t, n_tokens - 1u), block));
      continuing { t++; break if t == 8u; }
    }
    for (var q = 0u; q < QUADS_EACH; q++) {
      var i = 0u;
      loop {
        let row = quad_row(first_quad + q, i);
        let w = weights_at(row, block);
        let scale = select(0.0, row_scale(row, column), is_there);
        let low = subgroupAdd(scale * vec4f(product(w, x_of[0]), product(w, x_of[1]),
                                            product(w, x_of[2]), product(w, x_of[3])));
        let high = subgroupAdd(scale * vec4f(product(w, x_of[4]), product(w, x_of[5]),
                                             product(w, x_of[6]), product(w, x_of[7])));
        sums[4u * q + i] += vec2f(of_lane(lane, low), of_lane(lane, high));
        continuing { i++; break if i == 4u; }
      }
    }
  }
  if (lane >= 4u) { return; }
  for (var half = 0u; half < 2u && token + 4u * half + lane < n_tokens; half++) {
    for (var q = 0u; q < QUADS_EACH && first_quad + q < QUADS; q++) {
      let r = 4u * q;
      let y = vec4f(sums[r][half], sums[r + 1u][half], sums[r + 2u][half], sums[r + 3u][half]);
      for (var i = 0u; i < 4u; i++) { finish(token + 4u * half + lane, first_quad + q, i, y); }
    }
  }
}
