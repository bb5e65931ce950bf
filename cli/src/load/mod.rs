//! Files into specs: the project, single specs, deployments.

mod code;
mod project;
mod text;

pub(crate) use code::{Reading, code_targets, read_code};
pub(crate) use project::{File, Project, Target};
