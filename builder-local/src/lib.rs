//! The `default` builder: a container engine of this machine.

mod backend;

pub use backend::{ENTRY, Engine};
