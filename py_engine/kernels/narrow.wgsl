// Keeps the tokens that the filters can leave, in their order, each workgroup those of a slice. Far fewer
// than all, as a rule, so that one workgroup can then look at them again and again.
const RUN = (SLICE + WORKGROUP - 1u) / WORKGROUP;
const SIXTEENTH = WORKGROUP / 16u;
// Sums in another order may differ by so much.
const ROUNDING = 0.99;

var<workgroup> counts: array<u32, WORKGROUP>;
var<workgroup> part_counts: array<u32, 16>;
var<workgroup> least: f32;

// At least as many tokens have the probability of the k-th slice's likeliest one. 0 for a larger k.
fn least_of_top_k(thread: u32, sampling: Sampling, likeliest: f32) -> f32 {
  if (thread == 0u) { least = 0.0; }
  workgroupBarrier();
  for (var slice = thread; slice < SLICES; slice += WORKGROUP) {
    let mine = survey[row * SLICES + slice].x;
    var rank = 1u;
    for (var i = 0u; i < SLICES; i++) {
      let other = survey[row * SLICES + i].x;
      rank += u32(other > mine || (other == mine && i < slice));
    }
    if (rank == sampling.top_k) { least = ROUNDING * exp((mine - likeliest) / sampling.temperature); }
  }
  workgroupBarrier();
  return least;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let sampling = enter_row(group);
  if (sampling.temperature <= GREEDY) { return; }
  let likeliest = likeliest_of_slices().value;
  var least_kept = 0.0;
  if (sampling.top_k - 1u < VOCABULARY - 1u) {
    // The other filters come after this one, and depend on the mass that it leaves.
    least_kept = least_of_top_k(thread, sampling, likeliest);
  } else {
    // Tokens that each are below the share of what top_p leaves out have less mass than that.
    let mass = mass_of_slices(likeliest, sampling.temperature);
    let share = (1.0 - sampling.top_p) * mass / f32(VOCABULARY);
    least_kept = max(sampling.min_p, ROUNDING * share);
  }
  let slice = group.x * SLICE;
  let end = min(slice + SLICE, VOCABULARY);
  let first = slice + thread * RUN;
  var mine: array<f32, RUN>;
  var count = 0u;
  for (var i = 0u; i < RUN; i++) {
    var p = 0.0;
    if (first + i < end) {
      p = exp((logits[row * LOGITS_STRIDE + first + i] - likeliest) / sampling.temperature);
    }
    mine[i] = p;
    count += u32(p > 0.0 && p >= least_kept);
  }
  counts[thread] = count;
  workgroupBarrier();
  if (thread < 16u) {
    var part = 0u;
    for (var i = 0u; i < SIXTEENTH; i++) { part += counts[thread * SIXTEENTH + i]; }
    part_counts[thread] = part;
  }
  workgroupBarrier();
  var at = slice;
  for (var i = 0u; i < thread / SIXTEENTH; i++) { at += part_counts[i]; }
  for (var i = thread / SIXTEENTH * SIXTEENTH; i < thread; i++) { at += counts[i]; }
  for (var i = 0u; i < RUN; i++) {
    if (mine[i] > 0.0 && mine[i] >= least_kept) {
      probabilities[row * VOCABULARY + at] = mine[i];
      candidates[row * VOCABULARY + at] = first + i;
      at++;
    }
  }
  if (thread == WORKGROUP - 1u) { kept_tokens[row * SLICES + group.x] = at - slice; }
}
