// x in f32, in the order in which weights unpack.
alias Operand = Block;
alias Weights = Block;
fn operand(x: Block) -> Operand { return arrange(x); }
fn weights_at(row: u32, block: u32) -> Weights { return weight_block(row, block); }
fn product(w: Weights, x: Operand) -> f32 { return dot_blocks(w, x); }
