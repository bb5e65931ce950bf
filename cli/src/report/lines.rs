//! Progress for logs: a line when a step ends.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use imagespec_core::event::{BuildEvent, Event, EventSink};

use super::note;

#[derive(Default)]
pub(super) struct Lines {
    /// Title and start of every step that runs, by image and step.
    running: Mutex<HashMap<(String, String), (String, Instant)>>,
}

impl Lines {
    /// The line for an event, if it is worth one.
    pub(super) fn line(&self, event: Event) -> Option<String> {
        let Event { image, event } = event;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
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
                let took = if cached {
                    "cached".to_owned()
                } else {
                    seconds(since.elapsed())
                };
                let summary = Some(summary).filter(|summary| !summary.is_empty());
                let summary = summary.map_or_else(String::new, |summary| format!(": {summary}"));
                format!("{image}: {title}{summary} ({took})")
            }
            BuildEvent::Log { line, .. } => format!("{image}: | {}", printable(&line)),
            BuildEvent::Notice { message } => format!("{image}: {message}"),
            _ => return None,
        })
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f32())
}

/// What a command printed, without what would move the cursor. Colours go too.
fn printable(line: &str) -> String {
    let plain = anstream::adapter::strip_str(line).to_string();
    plain.replace(|c: char| c.is_control() && c != '\t', "")
}

impl EventSink for Lines {
    fn emit(&self, event: Event) {
        if let Some(line) = self.line(event) {
            note(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imagespec_core::event::Progress;

    #[test]
    fn a_step_gets_its_line_when_it_ends() {
        let lines = Lines::default();
        let said = Mutex::new(Vec::new());
        let sink = |event| said.lock().unwrap().extend(lines.line(event));
        let progress = Progress::new("app", &sink);
        progress.emit(BuildEvent::Started {
            builder: "native".to_owned(),
            reference: "app:1".to_owned(),
        });
        progress.notice("something to know");
        let step = progress.step("base", "base image");
        step.advance(1, None);
        step.log("\u{1b}[31mred\u{1b}[0m\u{8}");
        step.finish(true, "4 layers");
        progress.step("other", "sources").finish(true, "");
        insta::assert_snapshot!(said.lock().unwrap().join("\n"), @r"
    app: building app:1 with `native`
    app: something to know
    app: | red
    app: base image: 4 layers (cached)
    app: sources (cached)
    ");
    }

    #[test]
    fn times_are_in_tenths_of_seconds() {
        assert_eq!(seconds(Duration::from_millis(1234)), "1.2 s");
    }
}
