//! Progress, on standard error.

mod json;
mod lines;
mod live;

use std::io::IsTerminal as _;

use imagespec_core::event::{EventSink, Silent};

use crate::args::ProgressForm;

/// Whoever tells of progress in the wanted form.
pub(crate) fn reporter(form: ProgressForm) -> Box<dyn EventSink> {
    match form {
        ProgressForm::Quiet => Box::new(Silent),
        ProgressForm::Json => Box::new(json::JsonLines),
        ProgressForm::Tty => Box::new(live::Live::new()),
        ProgressForm::Auto if std::io::stderr().is_terminal() => Box::new(live::Live::new()),
        ProgressForm::Auto | ProgressForm::Plain => Box::new(lines::Lines::default()),
    }
}

/// A number of bytes as people write it.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::DecimalBytes(count).to_string()
}
