//! The `imagespec` command.

fn main() {}
