// Draws the next token and advances the sequence, in one workgroup: greedy, or one uniform number
// through the inverse of the cumulative distribution, in vocabulary order, of the tokens that
// top_k, top_p and min_p leave.
alias Sum = vec3f;
const TOP_K = 0u;
const TOP_P = 1u;
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
    for (var cut = TOP_K; cut <= TOP_P; cut++) {
      let counted = cut == TOP_K;
      let keeps_all = select(sampling.top_p >= 1.0, sampling.top_k - 1u >= VOCABULARY - 1u, counted);
      if (keeps_all) { continue; }
      let wanted = select(mass * sampling.top_p, f32(sampling.top_k), counted);
      // The highest threshold that reaches `wanted`, two bits at a time from the top; after top_k
      // the mass that it leaves. One call serves both cuts: compilers write each out in full.
      var found = 0u;
      for (var shift = 28; shift >= select(0, -2, counted); shift -= 2) {
        let is_search = shift >= 0;
        let steps = select(vec3u(), vec3u(1u, 2u, 3u) << vec3u(u32(max(shift, 0))), is_search);
        let reached = reached_by(thread, vec3u(found) + steps, counted && is_search);
        if (is_search) {
          found += dot(vec3u(reached >= vec3f(wanted)), vec3u(1u)) << u32(shift);
        } else {
          mass = reached.x;
        }
      }
      threshold = max(threshold, found);
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
