// A team of SPLIT subgroups, of exactly LANES each, has R rows of 4-bit codes: 2, 4, or the 8 of two quads.
// Its lanes take blocks in turn, UNROLL at a time, so that many loads are under way.
const TEAM_LANES = LANES * SPLIT;
const SUBGROUPS = WORKGROUP / LANES;
const TEAMS = SUBGROUPS / SPLIT;
const TEAM_QUADS = (R + 3u) / 4u;
const TEAMS_PER_QUAD = max(4u / R, 1u);
// Lanes that finish an output of a quad each: of a gated half quad, which is a gate and an up, one does.
const FINISHERS = select(min(R, 4u), 1u, GATED && R == 2u);

var<workgroup> partial_y: array<vec4f, SUBGROUPS * TEAM_QUADS>;
var<workgroup> partial_squares: array<f32, SUBGROUPS>;

// What a team reads of x.
struct Input { v: Operand, squares: f32 }

// Where a team's row stands in its quad.
fn member(part: u32, r: u32) -> u32 { return select(part * R + r % 4u, part + TEAMS_PER_QUAD * (r % 4u), GATED); }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let team = (group.y * GROUPS_X + group.x) * TEAMS + subgroup / SPLIT;
  let first_quad = team / TEAMS_PER_QUAD * TEAM_QUADS;
  let part = team % TEAMS_PER_QUAD;
  var rows: array<u32, R>;
  for (var r = 0u; r < R; r++) { rows[r] = quad_rows(first_quad + r / 4u)[member(part, r)]; }
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
        sums[r] += scales[i] * product(weights_of(words[i], weight_zero(rows[r], block)), here.v);
      }
    }
  }
  var y = array<vec4f, TEAM_QUADS>();
  for (var r = 0u; r < R; r++) {
    let sum = subgroupAdd(sums[r]);
    y[r / 4u] += select(vec4f(), vec4f(sum), vec4u(0u, 1u, 2u, 3u) == vec4u(member(part, r)));
  }
  squares = input_squares(squares);
  if (SPLIT > 1u) {
    if (lane == 0u) {
      for (var q = 0u; q < TEAM_QUADS; q++) { partial_y[subgroup * TEAM_QUADS + q] = y[q]; }
      partial_squares[subgroup] = squares;
    }
    workgroupBarrier();
    let first = subgroup / SPLIT * SPLIT;
    y = array<vec4f, TEAM_QUADS>();
    squares = 0.0;
    for (var i = first; i < first + SPLIT; i++) {
      for (var q = 0u; q < TEAM_QUADS; q++) { y[q] += partial_y[i * TEAM_QUADS + q]; }
      squares += partial_squares[i];
    }
  }
  if (subgroup % SPLIT == 0u && lane < FINISHERS) {
    for (var q = 0u; q < TEAM_QUADS; q++) {
      finish(0u, first_quad + q, select(part * R, part, GATED) + lane, y[q] * inverse_rms(squares));
    }
  }
}
