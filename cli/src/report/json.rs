//! Progress for programs: an event a line.

use imagespec_core::event::{Event, EventSink};

use super::note;

pub(super) struct JsonLines;

impl EventSink for JsonLines {
    fn emit(&self, event: Event) {
        if let Ok(line) = serde_json::to_string(&event) {
            note(&line);
        }
    }
}
