// x is what the parts of attention_split.wgsl join to, each head's in turn. Those without keys come last,
// with a denominator of 0 and sums of a step before.
const HEAD4 = HEAD_DIM / 4u;
const HEADS = COLUMNS / HEAD_DIM;
const PART4 = HEAD4 + 1u;

var<workgroup> part_weights: array<f32, HEADS * PARTS>;
var<workgroup> denominators: array<f32, HEADS>;
var<workgroup> parts_with_keys: u32;  // as many for each head

fn part_at(head: u32, part: u32) -> u32 { return (head * PARTS + part) * PART4; }

fn input_statistics(token: u32, thread: u32, stride: u32) -> vec2f {
  for (var head = thread; head < HEADS; head += stride) {
    var softmaxes: array<vec2f, PARTS>;  // maximum and denominator of each part
    var highest = -3.4e38;
    for (var p = 0u; p < PARTS; p++) {
      softmaxes[p] = split_parts[part_at(head, p) + HEAD4].xy;
      highest = max(highest, softmaxes[p].x);
    }
    var n_parts = 0u;
    var denominator = 0.0;
    for (var p = 0u; p < PARTS; p++) {
      // Exactly 1 for the highest, as `exp` need not be.
      let weight = select(exp(softmaxes[p].x - highest), 1.0, softmaxes[p].x == highest);
      part_weights[head * PARTS + p] = weight;
      denominator += weight * softmaxes[p].y;
      n_parts += select(0u, 1u, softmaxes[p].y > 0.0);
    }
    denominators[head] = denominator;
    if (head == 0u) { parts_with_keys = n_parts; }
  }
  workgroupBarrier();
  return vec2f(0.0);
}

fn part4(i: u32, p: u32) -> vec4f {
  let head = i / HEAD4;
  return part_weights[head * PARTS + p] * split_parts[part_at(head, p) + i % HEAD4];
}

// Part by part, so that a part's loads are on their way together.
fn input_block(token: u32, block: u32) -> Block {
  let i = block * 8u;
  var x = Block();
  for (var p = 0u; p < parts_with_keys; p++) {
    x.a += part4(i, p);
    x.b += part4(i + 1u, p);
    x.c += part4(i + 2u, p);
    x.d += part4(i + 3u, p);
    x.e += part4(i + 4u, p);
    x.f += part4(i + 5u, p);
    x.g += part4(i + 6u, p);
    x.h += part4(i + 7u, p);
  }
  return Block(x.a / denominators[i / HEAD4], x.b / denominators[(i + 1u) / HEAD4],
               x.c / denominators[(i + 2u) / HEAD4], x.d / denominators[(i + 3u) / HEAD4],
               x.e / denominators[(i + 4u) / HEAD4], x.f / denominators[(i + 5u) / HEAD4],
               x.g / denominators[(i + 6u) / HEAD4], x.h / denominators[(i + 7u) / HEAD4]);
}
