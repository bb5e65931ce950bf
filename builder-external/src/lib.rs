//! Builders that are programs of their own: `imagespec-builder-NAME` on `PATH`, spoken to in the lines of
//! [`imagespec_core::protocol`].

mod backend;
mod find;
mod process;

pub use backend::External;
pub use find::{all, entry};
