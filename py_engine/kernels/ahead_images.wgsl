// How many tokens behind it a token sees: the rest of its image.
fn ahead(token: u32) -> u32 {
  let row = state[STATE_IMAGES + token];
  if (row == 0u) { return 0u; }
  return IMAGE_TOKENS - 1u - (row - 1u) % IMAGE_TOKENS;
}
