fn count(token: u32) {}  // draws that do not depend on each other
