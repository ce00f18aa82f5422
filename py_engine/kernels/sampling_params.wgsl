struct Sampling {
  temperature: f32,
  top_p: f32,
  min_p: f32,
  top_k: u32,
  seed_low: u32,
  seed_high: u32,
  presence_penalty: f32,
  frequency_penalty: f32,
  repetition_penalty: f32,
  top_logprobs: u32,
}
const LOWEST = -3.4e38;  // the logit of a forbidden token
