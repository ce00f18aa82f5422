// What rows share of where the scale of a block lies: two halfs are in a word, and a row has whole words.
// Adapters on the CPU divide lane by lane, and take long to unpack a half.
struct Column { word: u32, is_high: bool }
fn column_of(block: u32) -> Column { return Column(block / 2u, block % 2u == 1u); }
fn row_scale(row: u32, column: Column) -> f32 {
  let pair = scales[row * (BLOCKS / 2u) + column.word];
  return unpack2x16float(select(pair * 0x10000u, pair, column.is_high)).y;
}
