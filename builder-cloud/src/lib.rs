//! Builder `union`: hands a build to a remote service and follows it.
//!
//! What the service needs of the context is sent by content, only what it lacks. An equal request of somebody else is
//! the same build. A connection that breaks is made again, and nothing that happened is lost or told twice.

mod backend;
mod follow;
mod options;
mod remote;
mod send;
mod tokens;
mod wire;

pub use backend::{ENTRY, Union, attach, submit};
pub use imagespec_build_api::{NewToken, Scope};
pub use tokens::Keeper;
