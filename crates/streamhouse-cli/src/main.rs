//! The streamhouse command.
fn main() {}
