//! The only file that prints.
#![expect(
    clippy::print_stderr,
    reason = "tasks talk to the person at the terminal"
)]

use std::error::Error;
use std::time::Duration;

/// Says which task begins.
pub(crate) fn heading(title: &str) {
    eprintln!("\n==> {title}");
}

/// Says something that is no error.
pub(crate) fn note(text: &str) {
    eprintln!("    {text}");
}

/// Says how long tasks took.
pub(crate) fn durations(rows: &[(&str, Duration, bool)]) {
    heading("durations");
    for (title, duration, passed) in rows {
        let mark = if *passed { "" } else { "  FAILED" };
        note(&format!(
            "{title:<8} {:>6.1} s{mark}",
            duration.as_secs_f64()
        ));
    }
}

/// Says what went wrong, and why.
pub(crate) fn error(error: &dyn Error) {
    eprintln!("\nerror: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  caused by: {error}");
        cause = error.source();
    }
}
