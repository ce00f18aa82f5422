// Adds the bias, then applies the penalties to tokens that were drawn before. The bounds keep
// forbidden tokens, and what a penalty far from 1 makes of others, finite.
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let token = id.x;
  if (token >= VOCABULARY) { return; }
  var logit = logits[token] + bias[token];
  let count = counts[token];
  if (count > 0u) {
    logit -= sampling.presence_penalty + f32(count) * sampling.frequency_penalty;
    let penalty = sampling.repetition_penalty;
    if (logit < 0.0) {
      logit = max(logit, LOWEST / max(penalty, 1.0)) * penalty;
    } else {
      logit = min(logit, -LOWEST * min(penalty, 1.0)) / penalty;
    }
  }
  logits[token] = logit;
}
