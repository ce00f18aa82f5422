// The word before, which has the first half of what two words hold.
var<private> before: u32;

fn store_word(block: u32, i: u32, word: u32) {
  if ((i & 1u) == 0u) {
    before = word;
    return;
  }
  let at = block * BLOCK_WORDS + (i >> 1u);
  weights[at] = eight_of(before, word, 0u);
  weights[at + 2u] = eight_of(before, word, 4u);
}
