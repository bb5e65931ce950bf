//! Progress for logs: a line when a step ends.
#![expect(clippy::print_stderr, reason = "progress is talk")]

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use imagespec_core::event::{BuildEvent, Event, EventSink};

#[derive(Default)]
pub(super) struct Lines {
    running: Mutex<HashMap<(String, String), (String, Instant)>>,
}

impl Lines {
    /// The line for an event, if it is worth one.
    pub(super) fn line(&self, event: Event) -> Option<String> {
        let Event { image, event } = event;
        let mut running = self.running.lock().ok()?;
        Some(match event {
            BuildEvent::Started { builder, reference } => {
                format!("{image}: building {reference} with `{builder}`")
            }
            BuildEvent::StepStarted { step, title } => {
                running.insert((image, step), (title, Instant::now()));
                return None;
            }
            BuildEvent::StepFinished {
                step,
                cached,
                summary,
            } => {
                let (title, since) = running.remove(&(image.clone(), step))?;
                let time = if cached {
                    "cached".to_owned()
                } else {
                    format!("{:.1} s", since.elapsed().as_secs_f32())
                };
                format!("{image}: {title}: {summary} ({time})")
            }
            BuildEvent::Log { line, .. } => format!("{image}: | {line}"),
            BuildEvent::Notice { message } => format!("{image}: {message}"),
            _ => return None,
        })
    }
}

impl EventSink for Lines {
    fn emit(&self, event: Event) {
        if let Some(line) = self.line(event) {
            eprintln!("{line}");
        }
    }
}
