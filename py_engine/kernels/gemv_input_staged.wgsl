// A workgroup brings x into its memory once, with the norm folded in and in the weights' order. Part
// i of all blocks lies together, so that lanes read neighbours.
var<workgroup> staged: array<vec4f, BLOCKS * 8u>;
var<workgroup> staged_sums: array<f32, BLOCKS>;
var<workgroup> staged_squares: array<f32, SUBGROUPS>;

// Returns the sum of squares.
fn prepare_input(thread: u32, subgroup: u32) -> f32 {
  var mine = 0.0;
  for (var block = thread; block < BLOCKS; block += WORKGROUP) {
    let raw = input_block(0u, block);
    mine += square_sum(raw);
    let v = arrange(normed(raw, block, vec2f()));
    staged[block] = v.a;
    staged[BLOCKS + block] = v.b;
    staged[2u * BLOCKS + block] = v.c;
    staged[3u * BLOCKS + block] = v.d;
    staged[4u * BLOCKS + block] = v.e;
    staged[5u * BLOCKS + block] = v.f;
    staged[6u * BLOCKS + block] = v.g;
    staged[7u * BLOCKS + block] = v.h;
    staged_sums[block] = block_sum(v);
  }
  staged_squares[subgroup] = subgroupAdd(mine);
  workgroupBarrier();
  var squares = 0.0;
  for (var i = 0u; i < SUBGROUPS; i++) { squares += staged_squares[i]; }
  return squares;
}

fn read_input(block: u32) -> Input {
  let v = Block(staged[block], staged[BLOCKS + block], staged[2u * BLOCKS + block], staged[3u * BLOCKS + block],
                staged[4u * BLOCKS + block], staged[5u * BLOCKS + block], staged[6u * BLOCKS + block],
                staged[7u * BLOCKS + block]);
  return Input(v, staged_sums[block], 0.0);
}

fn input_squares(all: f32) -> f32 { return all; }
