//! The model and the pipeline of `imagespec`: what an image declaration says, what it means, and the
//! interface every builder implements.
//!
//! Data moves one way. An [`ImageSpec`](spec::ImageSpec) is what a person wrote; [`resolve`](mod@resolve)
//! fills in every default and reads every file it names, once; [`plan`](mod@plan) turns the result into
//! semantic steps whose digest is the image's tag; [`execute`](mod@execute) hands plans to
//! [`Builder`](builder::Builder)s. No type knows the one after it.
//!
//! This crate contacts nothing: it has no network, no terminal, no environment and no home directory.
//! What a builder needs of the machine reaches it as a [`Host`](host::Host) snapshot.

pub mod builder;
pub mod context;
pub mod contract;
pub mod deployment;
pub mod digest;
pub mod dockerfile;
pub mod error;
pub mod event;
pub mod execute;
pub mod files;
pub mod host;
pub mod ignore;
pub mod login;
pub mod mask;
pub mod place;
pub mod plan;
pub mod platform;
pub mod protocol;
pub mod registries;
pub mod registry;
pub mod resolve;
pub mod serve;
pub mod shell;
pub mod spec;
pub mod tag;
pub mod validate;

#[doc(hidden)]
pub use inventory as __inventory;
