//! Python environments: requirements to locks, locks to wheels, wheels to layers.

pub mod bytecode;
pub mod fetch;
pub mod git;
pub mod index;
pub mod layers;
pub mod lock;
pub mod standalone;
pub mod uv;
pub mod venv;
pub mod wheel;
