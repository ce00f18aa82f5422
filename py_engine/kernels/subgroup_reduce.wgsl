// Reductions over a workgroup that is one subgroup, without a barrier; as in workgroup_reduce else.
const PARTS = WORKGROUP;
const IN_PART = 1u;

var<workgroup> values: array<f32, WORKGROUP>;
var<workgroup> part_values: array<f32, PARTS>;

fn workgroup_sum(thread: u32, value: Sum) -> Sum { return subgroupAdd(value); }

// Of equal values the lower token is the better one.
fn is_better(a: Candidate, b: Candidate) -> bool {
  return a.value > b.value || (a.value == b.value && a.token < b.token);
}

fn workgroup_best(thread: u32, mine: Candidate) -> Candidate {
  let highest = subgroupMax(mine.value);
  return Candidate(highest, subgroupMin(select(0xFFFFFFFFu, mine.token, mine.value == highest)));
}
