//! The command as a person meets it: standard output, standard error and the exit code of the real binary.

mod asking;
mod code;
mod declaring;
mod external;
mod failing;
mod place;
