// Draws the next token and advances the sequence, in one workgroup: greedy below GREEDY, else
// temperature, the smallest set of tokens whose mass reaches top_p, and one uniform number through
// the inverse of the cumulative distribution in vocabulary order.
const CHUNK = (VOCABULARY + WORKGROUP - 1u) / WORKGROUP;
const GREEDY = 1e-5;
const LOWEST = -3.4e38;

var<workgroup> values: array<f32, WORKGROUP>;
var<workgroup> tokens: array<u32, WORKGROUP>;
var<workgroup> totals: array<f32, 16>;

// The sum of one value a thread, the same for all threads: 16 threads add a sixteenth each.
fn workgroup_sum(thread: u32, value: f32) -> f32 {
  values[thread] = value;
  workgroupBarrier();
  if (thread < 16u) {
    var total = 0.0;
    for (var i = 0u; i < WORKGROUP / 16u; i++) { total += values[thread * (WORKGROUP / 16u) + i]; }
    totals[thread] = total;
  }
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < 16u; i++) { sum += totals[i]; }
  return sum;
}

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

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32) {
  var highest = LOWEST;
  var token = VOCABULARY - 1u;
  for (var i = thread; i < VOCABULARY; i += WORKGROUP) {
    if (logits[i] > highest) {
      highest = logits[i];
      token = i;
    }
  }
  values[thread] = highest;
  tokens[thread] = token;
  workgroupBarrier();
  for (var i = 0u; i < WORKGROUP; i++) {
    if (values[i] > highest || (values[i] == highest && tokens[i] < token)) {
      highest = values[i];
      token = tokens[i];
    }
  }
  workgroupBarrier();

  if (sampling.temperature > GREEDY) {
    var mass = 0.0;
    for (var i = thread; i < VOCABULARY; i += WORKGROUP) {
      let p = exp((logits[i] - highest) / sampling.temperature);
      probabilities[i] = p;
      mass += p;
    }
    let wanted = workgroup_sum(thread, mass) * sampling.top_p;
    storageBarrier();
    // Positive floats order as their bits: the highest threshold whose mass reaches `wanted` is
    // found bit by bit from the top. All masses are relative to the likeliest token's 1.0.
    var threshold = 0u;
    if (sampling.top_p < 1.0) {
      for (var bit = 0x20000000u; bit > 0u; bit >>= 1u) {
        let candidate = threshold | bit;
        var reached = 0.0;
        for (var i = thread; i < VOCABULARY; i += WORKGROUP) {
          let p = probabilities[i];
          reached += select(0.0, p, bitcast<u32>(p) >= candidate);
        }
        threshold = select(threshold, candidate, workgroup_sum(thread, reached) >= wanted);
      }
    }
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
    state[STATE_TOKEN] = token;
    state[STATE_POSITION] += state[STATE_N_TOKENS];
    state[STATE_N_TOKENS] = 1u;
    state[STATE_STEP] += 1u;
  }
}
