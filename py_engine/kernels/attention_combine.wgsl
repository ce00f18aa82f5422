// Joins the parts of `attention_split`, a workgroup for each head: groups of threads share the parts out, each
// with a thread for four elements of the head, so that all parts are on their way at once.
const GROUPS = WORKGROUP / HEAD4;

var<workgroup> softmaxes: array<vec2f, SPLITS>;  // maximum and denominator of each part
var<workgroup> group_sums: array<vec4f, WORKGROUP>;
var<workgroup> group_denominators: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) thread: u32) {
  let token = enter_row(id);
  let n_keys = visible_keys(position_of(token));
  let size = keys_per_split(n_keys);
  let n_splits = (n_keys + size - 1u) / size;
  let first = part_at(token, id.x);
  for (var s = thread; s < n_splits; s += WORKGROUP) {
    softmaxes[s] = split_parts[first + s * PART4 + HEAD4].xy;
  }
  workgroupBarrier();
  var highest = -3.4e38;
  for (var s = 0u; s < n_splits; s++) { highest = max(highest, softmaxes[s].x); }
  let group = thread / HEAD4;
  let i = thread % HEAD4;
  var sum = vec4f();
  var denominator = 0.0;
  // Where a head's fours do not divide the workgroup, its last threads have no group.
  let end = select(0u, n_splits, group < GROUPS);
  for (var s = group; s < end; s += GROUPS) {
    // Exactly 1 for the highest, as `exp` need not be: a part alone keeps the bits that it has.
    let weight = select(exp(softmaxes[s].x - highest), 1.0, softmaxes[s].x == highest);
    sum += weight * split_parts[first + s * PART4 + i];
    denominator += weight * softmaxes[s].y;
  }
  group_sums[thread] = sum;
  group_denominators[thread] = denominator;
  workgroupBarrier();
  if (thread >= HEAD4) { return; }
  for (var g = 1u; g < GROUPS; g++) {
    sum += group_sums[g * HEAD4 + i];
    denominator += group_denominators[g * HEAD4 + i];
  }
  write_head(token, id.x, i, sum, denominator);
}
