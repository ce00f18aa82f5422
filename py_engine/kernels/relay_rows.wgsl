fn element(row: u32, column: u32) -> u32 { return decoded(source_bits(row * piece[PIECE_COLUMNS] + column)); }
