//! The native imagespec builder: daemonless, rootless, embedded.
