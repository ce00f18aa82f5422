// Codes of 8 outputs a word. GPTQ's zeros.
fn packed_code(output: u32, word: u32) -> u32 { return (word >> ((output & 7u) * 4u)) & 15u; }
