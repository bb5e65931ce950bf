//! Progress for programs: an event a line.
#![expect(clippy::print_stderr, reason = "progress is talk")]

use imagespec_core::event::{Event, EventSink};

pub(super) struct JsonLines;

impl EventSink for JsonLines {
    fn emit(&self, event: Event) {
        if let Ok(line) = serde_json::to_string(&event) {
            eprintln!("{line}");
        }
    }
}
