//! Progress and data: everything the command says, but errors.

mod data;
mod json;
mod lines;
mod live;
mod table;

pub(crate) use data::{print, print_json};
pub(crate) use table::Table;

use imagespec_core::event::{EventSink, Silent};

use crate::args::ProgressForm;
use crate::host;

/// Whoever tells of progress in the wanted form, on standard error.
pub(crate) fn reporter(form: ProgressForm) -> Box<dyn EventSink> {
    match form {
        ProgressForm::Quiet => Box::new(Silent),
        ProgressForm::Json => Box::new(json::JsonLines),
        ProgressForm::Auto | ProgressForm::Tty if host::is_watched() => Box::new(live::Live::new()),
        ProgressForm::Auto | ProgressForm::Tty | ProgressForm::Plain => {
            Box::new(lines::Lines::default())
        }
    }
}

/// A number of bytes as people write it.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::DecimalBytes(count).to_string()
}

/// The start of a line on standard error, which the person ends.
fn prompt(text: &str) {
    use std::io::Write as _;
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "{text}").and_then(|()| stderr.flush());
}

/// A line on standard error. Where nobody can read it, nobody does.
pub(crate) fn note(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
