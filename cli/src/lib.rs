//! The `imagespec` command.
