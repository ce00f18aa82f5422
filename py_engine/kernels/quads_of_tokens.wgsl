// Rows of many quads times up to eight TOKENS, which share every load of a weight: for adapters on the CPU.
// These take a place in an array from memory, lane by lane, unless it is a constant. So a block's sums are
// brought together at once: lane i has tokens i and i + 4, two numbers a row. Hence tokens by number, too;
// compilers leave out those that are not there. Arrays of a function would be zeroed element by element,
// which takes long to compile.
var<private> sums: array<vec2f, 4u * QUADS_EACH>;
var<private> x_of: array<Operand, 8>;

fn dot_of(t: u32, w: Weights, x: Operand) -> f32 {
  if (t >= TOKENS) { return 0.0; }
  return product(w, x);
}

// What lane i of the first four keeps of what all of them have: number i.
fn of_lane(lane: u32, v: vec4f) -> f32 {
  return select(select(v.x, v.y, lane == 1u), select(v.z, v.w, lane == 3u), lane >= 2u);
}

// Adds what a lane's block of `x_of` contributes to the rows, 0 if the block `is_there` no more.
fn add_block(first_quad: u32, block: u32, is_there: bool, lane: u32) {
  let column = column_of(block);
  for (var q = 0u; q < QUADS_EACH; q++) {
    var i = 0u;
    loop {
      let row = quad_row(first_quad + q, i);
      let w = weights_at(row, block);
      let scale = select(0.0, row_scale(row, column), is_there);
      let low = subgroupAdd(scale * vec4f(dot_of(0u, w, x_of[0]), dot_of(1u, w, x_of[1]),
                                          dot_of(2u, w, x_of[2]), dot_of(3u, w, x_of[3])));
      sums[4u * q + i].x += of_lane(lane, low);
      if (TOKENS > 4u) {
        let high = subgroupAdd(scale * vec4f(dot_of(4u, w, x_of[4]), dot_of(5u, w, x_of[5]),
                                             dot_of(6u, w, x_of[6]), dot_of(7u, w, x_of[7])));
        sums[4u * q + i].y += of_lane(lane, high);
      }
      continuing { i++; break if i == 4u; }
    }
  }
}

// The sums of a lane's token of the first four, or of the others, in quad number q.
fn quad_sums(q: u32, half: u32) -> vec4f {
  let r = 4u * q;
  return vec4f(sums[r][half], sums[r + 1u][half], sums[r + 2u][half], sums[r + 3u][half]);
}
