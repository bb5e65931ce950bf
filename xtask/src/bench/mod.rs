//! `cargo xtask bench`: builds beside what others need for the same, in one run.

mod cases;
mod drawing;
mod facts;
mod load;
mod peers;
mod place;
mod results;
mod spec;

pub(crate) use cases::{Arguments, run};
