// A draw among the tokens that `narrow` kept: so many of each slice, at its beginning, where several
// threads look at them in turn.
alias Sum = vec3f;
const STRIDE = WORKGROUP / SLICES;

fn kept_of(thread: u32) -> u32 { return kept_tokens[row * SLICES + thread / STRIDE]; }
fn first_of(thread: u32) -> u32 { return thread / STRIDE * SLICE + thread % STRIDE; }
fn end_of(thread: u32) -> u32 { return thread / STRIDE * SLICE + kept_of(thread); }

fn run_of(thread: u32) -> vec2u {
  let n = kept_of(thread);
  let run = (n + STRIDE - 1u) / STRIDE;
  let at = thread % STRIDE * run;
  return thread / STRIDE * SLICE + min(vec2u(at, at + run), vec2u(n));
}

fn token_at(i: u32) -> u32 { return candidates[row * VOCABULARY + i]; }
fn likeliest_of_all(thread: u32) -> Candidate { return likeliest_of_slices(); }
fn mass_of_all(thread: u32, likeliest: f32, temperature: f32) -> f32 {
  return mass_of_slices(likeliest, temperature);
}
