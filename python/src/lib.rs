//! Python environments: requirements to locks, locks to wheels, wheels to layers.

pub mod lock;
pub mod wheel;
