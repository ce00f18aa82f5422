// x is what the parts of attention_split.wgsl join to, each head's in turn. A part without keys has a
// denominator of 0, and sums of a step before.
const HEAD4 = HEAD_DIM / 4u;
const HEADS = COLUMNS / HEAD_DIM;
const PART4 = HEAD4 + 1u;

var<workgroup> part_weights: array<f32, HEADS * PARTS>;
var<workgroup> denominators: array<f32, HEADS>;

fn part_at(head: u32, part: u32) -> u32 { return (head * PARTS + part) * PART4; }

fn input_statistics(token: u32, thread: u32, stride: u32) -> vec2f {
  for (var head = thread; head < HEADS; head += stride) {
    var highest = -3.4e38;
    for (var p = 0u; p < PARTS; p++) { highest = max(highest, split_parts[part_at(head, p) + HEAD4].x); }
    var denominator = 0.0;
    for (var p = 0u; p < PARTS; p++) {
      let softmax = split_parts[part_at(head, p) + HEAD4];
      // Exactly 1 for the highest, as `exp` need not be.
      let weight = select(exp(softmax.x - highest), 1.0, softmax.x == highest);
      part_weights[head * PARTS + p] = select(0.0, weight, softmax.y > 0.0);
      denominator += weight * softmax.y;
    }
    denominators[head] = denominator;
  }
  workgroupBarrier();
  return vec2f(0.0);
}

fn input4(i: u32) -> vec4f {
  let head = i / HEAD4;
  var sum = vec4f();
  for (var p = 0u; p < PARTS; p++) {
    let weight = part_weights[head * PARTS + p];
    if (weight > 0.0) { sum += weight * split_parts[part_at(head, p) + i % HEAD4]; }
  }
  return sum / denominators[head];
}

fn input_block(token: u32, block: u32) -> Block {
  let i = block * 8u;
  return Block(input4(i), input4(i + 1u), input4(i + 2u), input4(i + 3u),
               input4(i + 4u), input4(i + 5u), input4(i + 6u), input4(i + 7u));
}
