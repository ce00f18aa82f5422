// A workgroup brings x into its memory once, with the norm folded in and as products take it.
var<workgroup> staged_squares: array<f32, SUBGROUPS>;

// Returns the sum of squares.
fn prepare_input(thread: u32, subgroup: u32) -> f32 {
  var mine = 0.0;
  for (var block = thread; block < BLOCKS; block += WORKGROUP) {
    let raw = input_block(0u, block);
    mine += square_sum(raw);
    stage(block, operand(normed(raw, block, vec2f())));
  }
  staged_squares[subgroup] = subgroupAdd(mine);
  workgroupBarrier();
  var squares = 0.0;
  for (var i = 0u; i < SUBGROUPS; i++) { squares += staged_squares[i]; }
  return squares;
}

// Each of a team's subgroups has the squares of all of x.
fn input_squares(all: f32) -> f32 { return all / f32(SPLIT); }
