// Reductions over the one workgroup, their result the same for all threads: 16 threads take a part of
// the values each, then every thread takes these 16. A kernel says what it adds up: `alias Sum`.
const PARTS = 16u;
const IN_PART = WORKGROUP / PARTS;

var<workgroup> values: array<f32, WORKGROUP>;
var<workgroup> tokens: array<u32, WORKGROUP>;
var<workgroup> part_values: array<f32, PARTS>;
var<workgroup> part_tokens: array<u32, PARTS>;
var<workgroup> sums: array<Sum, WORKGROUP>;
var<workgroup> part_sums: array<Sum, PARTS>;

fn workgroup_sum(thread: u32, value: Sum) -> Sum {
  sums[thread] = value;
  workgroupBarrier();
  if (thread < PARTS) {
    var total = Sum();
    for (var i = 0u; i < IN_PART; i++) { total += sums[thread * IN_PART + i]; }
    part_sums[thread] = total;
  }
  workgroupBarrier();
  var sum = Sum();
  for (var i = 0u; i < PARTS; i++) { sum += part_sums[i]; }
  return sum;
}

// Of equal values the lower token is the better one.
fn is_better(a: Candidate, b: Candidate) -> bool {
  return a.value > b.value || (a.value == b.value && a.token < b.token);
}

fn workgroup_best(thread: u32, mine: Candidate) -> Candidate {
  values[thread] = mine.value;
  tokens[thread] = mine.token;
  workgroupBarrier();
  if (thread < PARTS) {
    var best = mine;
    for (var i = thread * IN_PART; i < (thread + 1u) * IN_PART; i++) {
      let other = Candidate(values[i], tokens[i]);
      if (is_better(other, best)) { best = other; }
    }
    part_values[thread] = best.value;
    part_tokens[thread] = best.token;
  }
  workgroupBarrier();
  var best = mine;
  for (var i = 0u; i < PARTS; i++) {
    let other = Candidate(part_values[i], part_tokens[i]);
    if (is_better(other, best)) { best = other; }
  }
  return best;
}
