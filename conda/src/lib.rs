//! Conda for imagespec: channels, the packages of an environment, and packages as layers. Nothing is run, and no
//! Conda has to be there.

mod archive;
mod channel;
mod error;
mod facts;
pub mod index;
pub mod layers;
mod prefix;
mod said;
mod solve;
mod wire;

pub use channel::{CONDA_FORGE, Channel, Channels, Priority};
pub use error::CondaError;
pub use facts::{Distribution, Facts, Layout};
pub use imagespec_core::contract::{CONDA_PREFIX as PREFIX, CONDA_ROOT as ROOT};
pub use solve::{Package, Request, check, fetch, file, solve, subdir};
pub use wire::{Login, Session};
