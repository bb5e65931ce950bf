//! Run a command in a root file system without root, and keep what it changed.
//!
//! [`Snapshots`] unpacks layers once. A [`Job`] names the layers that make a root file system and the command to
//! run in it; [`run`](fn@run), [`exec`] and [`spawn`] run it over an overlay in namespaces of its own, and
//! [`changes::write`] turns what it left in its [`Workspace`] into a layer.
//!
//! Entering a user namespace takes a process with a single thread, so all of it happens in a helper: the
//! program that [`Host::sandbox_init`](imagespec_core::host::Host::sandbox_init) names, which is to call
//! [`init`] before it starts any thread. How much a sandbox can do depends on the [`Tier`] the machine offers.
//!
//! Only Linux can run a sandbox. Elsewhere everything compiles and answers [`Unsupported`].

mod error;
mod job;
mod workspace;

#[cfg(target_os = "linux")]
pub mod changes;
#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
mod init;
#[cfg(target_os = "linux")]
mod launch;
#[cfg(target_os = "linux")]
mod owner;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod scratch;
#[cfg(target_os = "linux")]
mod snapshots;
#[cfg(target_os = "linux")]
mod tier;
#[cfg(target_os = "linux")]
mod unpack;
#[cfg(target_os = "linux")]
mod worker;
#[cfg(target_os = "linux")]
mod xattr;

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(not(target_os = "linux"))]
pub use elsewhere::{
    Snapshots, Worker, changes, exec, init, is_ordinary_user, remove_tree, run, settle, spawn,
    tier, unpack,
};

pub use error::{Error, Unsupported};
pub use job::{Exit, Job, Limit, Limits, Mount, Network, Tier};
pub use workspace::Workspace;

#[cfg(target_os = "linux")]
pub use self::{
    init::init,
    run::{exec, run, settle},
    scratch::remove_tree,
    snapshots::Snapshots,
    tier::{is_ordinary_user, tier},
    unpack::unpack,
    worker::{Worker, spawn},
};
