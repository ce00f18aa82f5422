// What rows share of where the scale of a block lies.
alias Column = u32;
fn column_of(block: u32) -> Column { return block; }
fn row_scale(row: u32, column: Column) -> f32 { return weight_scale(row, column); }
