//! Images that Flyte code declares.
//!
//! Two readers answer the same question, which images the tasks of a file or a package need: [`read`] reads the code
//! without running it, in milliseconds and without Python, and says so where it cannot know; [`python`] runs it in the
//! user's own interpreter and asks flytekit. [`platform`] is the command that code is handed to afterwards.

mod code;
pub mod interpreter;
pub mod platform;
mod project;
pub mod python;
mod read;

pub use code::{Code, CodeImage, Entity, EntityKind};
pub use project::{Project, source_root};
pub use read::{Around, read};
