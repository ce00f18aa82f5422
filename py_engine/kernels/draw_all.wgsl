// A draw that looks at all tokens: `probabilities` gets those of the whole vocabulary, relative to the
// likeliest token's.
alias Sum = vec3f;
const STRIDE = WORKGROUP;
const RUN = (VOCABULARY + WORKGROUP - 1u) / WORKGROUP;

fn first_of(thread: u32) -> u32 { return thread; }
fn end_of(thread: u32) -> u32 { return VOCABULARY; }
fn run_of(thread: u32) -> vec2u { return vec2u(thread * RUN, min((thread + 1u) * RUN, VOCABULARY)); }
fn token_at(i: u32) -> u32 { return i; }

fn likeliest_of_all(thread: u32) -> Candidate {
  var mine = Candidate(LOWEST, VOCABULARY - 1u);
  for (var i = thread; i < VOCABULARY; i += WORKGROUP) {
    let logit = logits[row * LOGITS_STRIDE + i];
    if (logit > mine.value) { mine = Candidate(logit, i); }
  }
  return workgroup_best(thread, mine);
}

fn mass_of_all(thread: u32, likeliest: f32, temperature: f32) -> f32 {
  var mass = 0.0;
  for (var i = thread; i < VOCABULARY; i += WORKGROUP) {
    let p = exp((logits[row * LOGITS_STRIDE + i] - likeliest) / temperature);
    probabilities[row * VOCABULARY + i] = p;
    mass += p;
  }
  mass = workgroup_sum(thread, vec3f(mass)).x;
  storageBarrier();
  return mass;
}
