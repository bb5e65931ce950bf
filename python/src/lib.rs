//! Python environments: requirements to locks, locks to wheels, wheels to layers.

pub mod bytecode;
pub mod layers;
pub mod lock;
pub mod venv;
pub mod wheel;
