//! A plan as a Dockerfile with its context: what builders share that leave the work to an engine, a daemon or a
//! cluster.

mod failure;
mod lower;
mod told;
mod tree;
mod written;

pub use failure::{LastLines, failure};
pub use lower::{Lowered, Site, lower, read_lent};
pub use told::{Log, Moved, Status, Told, Vertex};
pub use tree::{DOCKERFILE, Doorman, File, Node, Tree};
pub use written::{Base, print, write};
