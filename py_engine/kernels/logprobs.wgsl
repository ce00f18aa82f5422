// Log-probabilities of the drawn token and of the likeliest tokens, in one workgroup. Each thread
// knows the likeliest of its own tokens; only the one whose token was taken looks for its next.
alias Sum = f32;
const UNLIKELY = -9999.0;

fn best_after(thread: u32, bound: Candidate) -> Candidate {
  var best = Candidate(LOWEST, VOCABULARY);
  for (var i = thread; i < VOCABULARY; i += WORKGROUP) {
    let candidate = Candidate(max(logits[i], LOWEST), i);
    if (is_better(bound, candidate) && is_better(candidate, best)) { best = candidate; }
  }
  return best;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32) {
  let temperature = select(1.0, sampling.temperature, sampling.temperature > GREEDY);
  // Bounded before the division too, so that it does not overflow.
  let lowest = UNLIKELY * temperature;
  let n_top = min(sampling.top_logprobs, min(MAX_TOP, VOCABULARY));
  var highest = 0.0;
  var log_total = 0.0;
  var mine = Candidate();
  var best = Candidate(-LOWEST, thread);  // every thread looks for its first one
  for (var n = 0u; n < max(n_top, 1u); n++) {
    if (best.token % WORKGROUP == thread) { mine = best_after(thread, best); }
    best = workgroup_best(thread, mine);
    if (n == 0u) {
      highest = best.value;
      var mass = 0.0;
      for (var i = thread; i < VOCABULARY; i += WORKGROUP) {
        mass += exp((logits[i] - highest) / temperature);
      }
      log_total = log(workgroup_sum(thread, mass));
    }
    if (thread == 0u && n < n_top) {
      let logprob = max(best.value - highest, lowest) / temperature - log_total;
      drawn[2u + 2u * n] = best.token;
      drawn[3u + 2u * n] = bitcast<u32>(max(logprob, UNLIKELY));
    }
  }
  if (thread == 0u) {
    let token = state[STATE_TOKEN];
    let logprob = max(logits[token] - highest, lowest) / temperature - log_total;
    drawn[0] = token;
    drawn[1] = bitcast<u32>(max(logprob, UNLIKELY));
  }
}
