//! The `tierpool` program.
fn main() {}
