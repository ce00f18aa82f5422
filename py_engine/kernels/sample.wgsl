// Draws the next token and advances the sequence, in one workgroup: greedy, or one uniform number
// through the inverse of the cumulative distribution, in vocabulary order, of the tokens that
// top_k, top_p and min_p leave. Which tokens a thread has to look at is the matter of `draw_all` and
// `draw_narrowed`.
const TOP_K = 0u;
const TOP_P = 1u;

// PCG output function as a hash (Jarzynski and Olano 2020).
fn pcg(value: u32) -> u32 {
  let s = value * 747796405u + 2891336453u;
  let word = ((s >> ((s >> 28u) + 4u)) ^ s) * 277803737u;
  return (word >> 22u) ^ word;
}

fn uniform_number(sampling: Sampling, step: u32) -> f32 {
  let bits = pcg(sampling.seed_low ^ pcg(sampling.seed_high ^ pcg(step)));
  return (f32(bits >> 8u) + 0.5) * 0x1p-24;
}

// The masses, or the numbers, of the tokens whose probability has at least the bits of a threshold:
// positive floats order as their bits. All masses are relative to the likeliest token's 1.0.
fn reached_by(thread: u32, thresholds: vec3u, counted: bool) -> vec3f {
  var reached = vec3f();
  let end = end_of(thread);
  for (var i = first_of(thread); i < end; i += STRIDE) {
    let p = probabilities[row * VOCABULARY + i];
    let amount = vec3f(select(p, 1.0, counted));
    reached += select(vec3f(), amount, vec3u(bitcast<u32>(p)) >= thresholds);
  }
  return workgroup_sum(thread, reached);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let sampling = enter_row(group);
  let likeliest = likeliest_of_all(thread);
  var token = likeliest.token;

  if (sampling.temperature > GREEDY) {
    var mass = mass_of_all(thread, likeliest.value, sampling.temperature);
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
    var kept = 0.0;
    let mine = run_of(thread);
    for (var i = mine.x; i < mine.y; i++) {
      let p = probabilities[row * VOCABULARY + i];
      kept += select(0.0, p, bitcast<u32>(p) >= threshold);
    }
    values[thread] = kept;
    workgroupBarrier();
    if (thread < PARTS) {
      var part = 0.0;
      for (var i = 0u; i < IN_PART; i++) { part += values[thread * IN_PART + i]; }
      part_values[thread] = part;
    }
    workgroupBarrier();
    if (thread == 0u) {
      var total = 0.0;
      for (var i = 0u; i < PARTS; i++) { total += part_values[i]; }
      let target_mass = total * uniform_number(sampling, state[state_at + STATE_STEP]);
      var passed = 0.0;
      var part = 0u;
      while (part < PARTS - 1u && passed + part_values[part] <= target_mass) {
        passed += part_values[part];
        part++;
      }
      var owner = part * IN_PART;
      let last = owner + IN_PART - 1u;
      while (owner < last && passed + values[owner] <= target_mass) {
        passed += values[owner];
        owner++;
      }
      // `token` stays the likeliest one if rounding carries the walk past the last kept token.
      let run = run_of(owner);
      for (var i = run.x; i < run.y; i++) {
        let p = probabilities[row * VOCABULARY + i];
        if (bitcast<u32>(p) >= threshold && p > 0.0) {
          passed += p;
          token = token_at(i);
          if (passed > target_mass) { break; }
        }
      }
    }
  }
  if (thread == 0u) {
    count(token);
    state[state_at + STATE_TOKEN] = token;
    state[state_at + STATE_POSITION] += state[state_at + STATE_N_TOKENS];
    state[state_at + STATE_N_TOKENS] = 1u;
    state[state_at + STATE_STEP] += 1u;
  }
}
