// Part i of all blocks lies together, so that lanes read neighbours.
var<workgroup> staged: array<vec4f, BLOCKS * 8u>;
var<workgroup> staged_sums: array<f32, BLOCKS>;

fn stage(block: u32, v: Operand) {
  staged[block] = v.v.a;
  staged[BLOCKS + block] = v.v.b;
  staged[2u * BLOCKS + block] = v.v.c;
  staged[3u * BLOCKS + block] = v.v.d;
  staged[4u * BLOCKS + block] = v.v.e;
  staged[5u * BLOCKS + block] = v.v.f;
  staged[6u * BLOCKS + block] = v.v.g;
  staged[7u * BLOCKS + block] = v.v.h;
  staged_sums[block] = v.sum;
}

fn read_input(block: u32) -> Input {
  let v = Block(staged[block], staged[BLOCKS + block], staged[2u * BLOCKS + block], staged[3u * BLOCKS + block],
                staged[4u * BLOCKS + block], staged[5u * BLOCKS + block], staged[6u * BLOCKS + block],
                staged[7u * BLOCKS + block]);
  return Input(Operand(v, staged_sums[block]), 0.0);
}
