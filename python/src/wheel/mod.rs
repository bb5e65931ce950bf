//! Wheels: read as hostile archives, written as layers.
