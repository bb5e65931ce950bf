//! Files into specs: the project, single specs, deployments.

mod project;
mod text;

pub(crate) use project::{File, Project, Target};
