//! Run a command in a root file system without root, and keep what it changed.
