//! The build service: takes plans over HTTP, has them built by a builder, and tells what happens.
//!
//! [`Serving::start`] opens a service and [`Serving::run`] serves. Everything that was accepted is in a database:
//! `SQLite` for one service, `PostgreSQL` for several. Workers take builds from there under a lease that they renew, so
//! that a build whose worker is lost goes to another.

mod api;
mod builds;
mod clock;
mod database;
mod files;
mod page;
mod service;
mod settings;
mod tokens;
mod vet;
mod worker;

pub use api::openapi;
pub use service::Serving;
pub use settings::{Limits, Settings};
