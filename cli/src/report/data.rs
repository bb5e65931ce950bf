//! Data on standard output.

use std::io::{self, Write as _};

use imagespec_core::error::BuildError;
use serde::Serialize;

/// Prints a text with its end of line. A reader that went away is no error.
pub(crate) fn print(text: &str) -> Result<(), BuildError> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(BuildError::failed("cannot write to standard output").caused_by(&error))
        }
        _ => Ok(()),
    }
}

/// Prints a value as one JSON document.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), BuildError> {
    let text = serde_json::to_string_pretty(value);
    print(&text.map_err(|error| BuildError::failed("cannot write JSON").caused_by(&error))?)
}
