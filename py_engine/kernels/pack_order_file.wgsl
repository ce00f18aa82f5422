// A block's words as they are in the file.
fn store_word(block: u32, i: u32, word: u32) { weights[block * BLOCK_WORDS + i] = word; }
