fn ahead(token: u32) -> u32 { return 0u; }
