//! Errors as a person reads them, on standard error.

use std::error::Error as _;

use anstream::eprintln;
use imagespec_core::error::BuildError;

/// Prints what happened, why, and what to do next.
pub(crate) fn print(error: &BuildError) {
    eprintln!("\u{1b}[1;31merror:\u{1b}[0m {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        let mut lines = text.lines();
        eprintln!("  caused by: {}", lines.next().unwrap_or_default());
        for line in lines {
            eprintln!("    {line}");
        }
        source = cause.source();
    }
    for hint in &error.hints {
        eprintln!("\u{1b}[1;36mhint:\u{1b}[0m {hint}");
    }
}
