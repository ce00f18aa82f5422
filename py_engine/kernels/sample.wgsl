// Draws the next token and advances the sequence, in one workgroup: greedy, or one uniform number
// through the inverse of the cumulative distribution, in vocabulary order, of the tokens that
// top_k, top_p and min_p leave.
alias Sum = vec3f;
const CHUNK = (VOCABULARY + WORKGROUP - 1u) / WORKGROUP;

// PCG output function as a hash (Jarzynski and Olano 2020).
fn pcg(value: u32) -> u32 {
  let s = value * 747796405u + 2891336453u;
  let word = ((s >> ((s >> 28u) + 4u)) ^ s) * 277803737u;
  return (word >> 22u) ^ word;
}

fn uniform_number(step: u32) -> f32 {
  let bits = pcg(sampling.seed_low ^ pcg(sampling.seed_high ^ pcg(step)));
  return (f32(bits >> 8u) + 0.5) * 0x1p-24;
}

// The masses, or the numbers, of the tokens whose probability has at least the bits of a threshold:
// positive floats order as their bits. All masses are relative to the likeliest token's 1.0.
fn reached_by(thread: u32, thresholds: vec3u, counted: bool) -> vec3f {
  var reached = vec3f();
  for (var i = thread; i < VOCABULARY; i += WORKGROUP) {
    let p = probabilities[i];
    let amount = vec3f(select(p, 1.0, counted));
    reached += select(vec3f(), amount, vec3u(bitcast<u32>(p)) >= thresholds);
  }
  return workgroup_sum(thread, reached);
}

// The highest threshold that reaches `wanted`, found two bits at a time from the top.
fn highest_threshold(thread: u32, wanted: f32, counted: bool) -> u32 {
  var threshold = 0u;
  for (var shift = 30u; shift > 0u; ) {
    shift -= 2u;
    let candidates = vec3u(threshold) + (vec3u(1u, 2u, 3u) << vec3u(shift));
    let is_reached = reached_by(thread, candidates, counted) >= vec3f(wanted);
    threshold += dot(vec3u(is_reached), vec3u(1u)) << shift;
  }
  return threshold;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32) {
  var mine = Candidate(LOWEST, VOCABULARY - 1u);
  for (var i = thread; i < VOCABULARY; i += WORKGROUP) {
    if (logits[i] > mine.value) { mine = Candidate(logits[i], i); }
  }
  let likeliest = workgroup_best(thread, mine);
  var token = likeliest.token;

  if (sampling.temperature > GREEDY) {
    var mass = 0.0;
    for (var i = thread; i < VOCABULARY; i += WORKGROUP) {
      let p = exp((logits[i] - likeliest.value) / sampling.temperature);
      probabilities[i] = p;
      mass += p;
    }
    mass = workgroup_sum(thread, vec3f(mass)).x;
    storageBarrier();
    var threshold = 0u;
    if (sampling.top_k > 0u && sampling.top_k < VOCABULARY) {
      threshold = highest_threshold(thread, f32(sampling.top_k), true);
      mass = reached_by(thread, vec3u(threshold), false).x;
    }
    if (sampling.top_p < 1.0) {
      threshold = max(threshold, highest_threshold(thread, mass * sampling.top_p, false));
    }
    threshold = max(threshold, bitcast<u32>(sampling.min_p));
    let first = thread * CHUNK;
    let end = min(first + CHUNK, VOCABULARY);
    var kept = 0.0;
    for (var i = first; i < end; i++) {
      let p = probabilities[i];
      kept += select(0.0, p, bitcast<u32>(p) >= threshold);
    }
    values[thread] = kept;
    workgroupBarrier();
    if (thread == 0u) {
      var total = 0.0;
      for (var i = 0u; i < WORKGROUP; i++) { total += values[i]; }
      let target_mass = total * uniform_number(state[STATE_STEP]);
      var passed = 0.0;
      var owner = 0u;
      while (owner < WORKGROUP - 1u && passed + values[owner] <= target_mass) {
        passed += values[owner];
        owner++;
      }
      // `token` stays the likeliest one if rounding carries the walk past the last kept token.
      for (var i = owner * CHUNK; i < min((owner + 1u) * CHUNK, VOCABULARY); i++) {
        let p = probabilities[i];
        if (bitcast<u32>(p) >= threshold && p > 0.0) {
          passed += p;
          token = i;
          if (passed > target_mass) { break; }
        }
      }
    }
  }
  if (thread == 0u) {
    counts[token] += 1u;
    state[STATE_TOKEN] = token;
    state[STATE_POSITION] += state[STATE_N_TOKENS];
    state[STATE_N_TOKENS] = 1u;
    state[STATE_STEP] += 1u;
  }
}
