// A workgroup brings x into its memory once, with the norm folded in and as products take it.
var<workgroup> staged_squares: array<f32, SUBGROUPS>;
var<private> own_subgroup: u32;

fn staged_total(mine: f32) -> f32 {
  staged_squares[own_subgroup] = subgroupAdd(mine);
  workgroupBarrier();
  var squares = 0.0;
  for (var i = 0u; i < SUBGROUPS; i++) { squares += staged_squares[i]; }
  return squares;
}

// Returns the sum of squares.
fn prepare_input(thread: u32, subgroup: u32) -> f32 {
  own_subgroup = subgroup;
  let statistics = input_statistics(0u, thread, WORKGROUP);
  var mine = 0.0;
  for (var block = thread; block < BLOCKS; block += WORKGROUP) {
    let raw = input_block(0u, block);
    mine += square_sum(raw);
    stage(block, operand(normed(raw, block, statistics)));
  }
  return staged_total(mine);
}

// Each of a team's subgroups has the squares of all of x.
fn input_squares(all: f32) -> f32 { return all / f32(SPLIT); }
