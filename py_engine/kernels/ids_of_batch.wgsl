// Each token's id, or position, is in its own `state`, whose first word `rows` has.
fn wanted_row(token: u32) -> u32 { return ids[rows[token].x + ID_OFFSET]; }
