fn element(row: u32, column: u32) -> u32 { return packed_code(row, source[(column * piece[PIECE_ROWS] + row) >> 3u]); }
