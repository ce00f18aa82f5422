// x is what the parts of attention_split.wgsl join to, each head's in turn. Those without keys come last,
// with a denominator of 0 and sums of a step before.
const PART4 = HEAD_DIM / 4u + 1u;
const HEAD_BLOCKS = HEAD_DIM / 32u;

fn input_block(token: u32, block: u32) -> Block {
  let first = block / HEAD_BLOCKS * PARTS * PART4;
  var highest = -3.4e38;
  var n_parts = 0u;
  for (var p = 0u; p < PARTS; p++) {
    let softmax = split_parts[first + (p + 1u) * PART4 - 1u].xy;  // maximum and denominator
    highest = max(highest, softmax.x);
    n_parts += select(0u, 1u, softmax.y > 0.0);
  }
  var x = Block();
  var denominator = 0.0;
  var p = 0u;
  loop {
    let softmax = split_parts[first + (p + 1u) * PART4 - 1u].xy;
    // Exactly 1 for the highest, as `exp` need not be.
    let weight = select(exp(softmax.x - highest), 1.0, softmax.x == highest);
    denominator += weight * softmax.y;
    let i = first + p * PART4 + block % HEAD_BLOCKS * 8u;
    x.a += weight * split_parts[i];
    x.b += weight * split_parts[i + 1u];
    x.c += weight * split_parts[i + 2u];
    x.d += weight * split_parts[i + 3u];
    x.e += weight * split_parts[i + 4u];
    x.f += weight * split_parts[i + 5u];
    x.g += weight * split_parts[i + 6u];
    x.h += weight * split_parts[i + 7u];
    continuing { p++; break if p >= n_parts; }
  }
  return Block(x.a / denominator, x.b / denominator, x.c / denominator, x.d / denominator,
               x.e / denominator, x.f / denominator, x.g / denominator, x.h / denominator);
}
