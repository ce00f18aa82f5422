// A team of SPLIT subgroups, of exactly LANES each, has R rows of 4-bit codes, 4 or 2. Its lanes take
// blocks in turn, UNROLL at a time, so that many loads are under way. The codes' zero comes off as
// zero times the sum of x.
const TEAM_LANES = LANES * SPLIT;
const SUBGROUPS = WORKGROUP / LANES;
const TEAMS = SUBGROUPS / SPLIT;
const TEAMS_PER_QUAD = 4u / R;
// Lanes that finish an output each: of a gated half quad, which is a gate and an up, one does.
const FINISHERS = select(R, 1u, GATED && R == 2u);

struct Input { v: Block, sum: f32, squares: f32 }

var<workgroup> partial_y: array<vec4f, SUBGROUPS>;
var<workgroup> partial_squares: array<f32, SUBGROUPS>;

fn block_sum(v: Block) -> f32 { return dot(v.a + v.b + v.c + v.d + v.e + v.f + v.g + v.h, vec4f(1.0)); }

fn code_dot(w: vec4u, v: Block) -> f32 {
  return dot_blocks(Block(even_codes(w.x, 0.0), odd_codes(w.x, 0.0), even_codes(w.y, 0.0), odd_codes(w.y, 0.0),
                          even_codes(w.z, 0.0), odd_codes(w.z, 0.0), even_codes(w.w, 0.0), odd_codes(w.w, 0.0)), v);
}

// Where a team's row stands in its quad.
fn member(part: u32, r: u32) -> u32 { return select(part * R + r, part + TEAMS_PER_QUAD * r, GATED); }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let team = (group.y * GROUPS_X + group.x) * TEAMS + subgroup / SPLIT;
  let quad = team / TEAMS_PER_QUAD;
  let part = team % TEAMS_PER_QUAD;
  let quad_row = quad_rows(quad);
  var rows: array<u32, R>;
  for (var r = 0u; r < R; r++) { rows[r] = quad_row[member(part, r)]; }
  var squares = prepare_input(thread, subgroup);
  var sums = array<f32, R>();
  for (var at = subgroup % SPLIT * LANES + lane; at < BLOCKS; at += UNROLL * TEAM_LANES) {
    var words: array<vec4u, UNROLL * R>;
    var scales: array<f32, UNROLL * R>;
    for (var u = 0u; u < UNROLL; u++) {
      // Past the end the last block once more, with a weight of 0.
      let block = min(at + u * TEAM_LANES, BLOCKS - 1u);
      for (var r = 0u; r < R; r++) {
        words[u * R + r] = weights[rows[r] * BLOCKS + block];
        scales[u * R + r] = select(0.0, weight_scale(rows[r], block), at + u * TEAM_LANES < BLOCKS);
      }
    }
    for (var u = 0u; u < UNROLL; u++) {
      let block = min(at + u * TEAM_LANES, BLOCKS - 1u);
      let here = read_input(block);
      squares += select(0.0, here.squares, at + u * TEAM_LANES < BLOCKS);
      for (var r = 0u; r < R; r++) {
        let i = u * R + r;
        sums[r] += scales[i] * (code_dot(words[i], here.v) - weight_zero(rows[r], block) * here.sum);
      }
    }
  }
  var y = vec4f();
  for (var r = 0u; r < R; r++) {
    let sum = subgroupAdd(sums[r]);
    y += select(vec4f(), vec4f(sum), vec4u(0u, 1u, 2u, 3u) == vec4u(member(part, r)));
  }
  squares = input_squares(squares);
  if (SPLIT > 1u) {
    if (lane == 0u) {
      partial_y[subgroup] = y;
      partial_squares[subgroup] = squares;
    }
    workgroupBarrier();
    let first = subgroup / SPLIT * SPLIT;
    y = vec4f();
    squares = 0.0;
    for (var i = first; i < first + SPLIT; i++) {
      y += partial_y[i];
      squares += partial_squares[i];
    }
  }
  if (subgroup % SPLIT == 0u && lane < FINISHERS) {
    finish(0u, quad, select(part * R, part, GATED) + lane, y * inverse_rms(squares));
  }
}
