//! What happened in a build, by its steps.

use imagespec_build_api::Happened;
use imagespec_core::event::BuildEvent;

/// The most lines of one step on a page; the log has all.
const LINES: usize = 2000;

/// A step of a build.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) started: i64,
    pub(super) ended: Option<i64>,
    pub(super) is_cached: bool,
    pub(super) summary: String,
    pub(super) lines: Vec<String>,
    /// Lines that are not shown.
    pub(super) left_out: usize,
}

/// The story of a build.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Story {
    pub(super) steps: Vec<Step>,
    pub(super) notices: Vec<String>,
    /// Number of the last event.
    pub(super) last: i64,
}

impl Story {
    /// Takes what happened next.
    pub(super) fn take(&mut self, number: i64, happened: Happened) {
        self.last = number;
        let Happened { at, event } = happened;
        match event {
            BuildEvent::StepStarted { step, title } => self.steps.push(Step::new(step, title, at)),
            BuildEvent::StepFinished {
                step,
                cached,
                summary,
            } => {
                let step = self.step(step, at);
                step.ended = Some(at);
                step.is_cached = cached;
                step.summary = summary;
            }
            BuildEvent::Log { step, line } => {
                let step = self.step(step, at);
                if step.lines.len() < LINES {
                    step.lines.push(line);
                } else {
                    step.left_out += 1;
                }
            }
            BuildEvent::Notice { message } => self.notices.push(message),
            _ => {}
        }
    }

    /// The last step of a name; what was not told of begins when something is heard of it.
    fn step(&mut self, name: String, at: i64) -> &mut Step {
        let found = self.steps.iter().rposition(|step| step.name == name);
        let at = found.unwrap_or_else(|| {
            let title = name.clone();
            self.steps.push(Step::new(name, title, at));
            self.steps.len() - 1
        });
        &mut self.steps[at]
    }
}

impl Step {
    fn new(name: String, title: String, started: i64) -> Self {
        Self {
            name,
            title,
            started,
            ended: None,
            is_cached: false,
            summary: String::new(),
            lines: Vec::new(),
            left_out: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_belongs_to_the_last_step_of_its_name() {
        let mut story = Story::default();
        let events = [
            r#"{"at": 1, "event": "step_started", "step": "a", "title": "first"}"#,
            r#"{"at": 2, "event": "log", "step": "a", "line": "one"}"#,
            r#"{"at": 3, "event": "step_started", "step": "a", "title": "again"}"#,
            r#"{"at": 4, "event": "log", "step": "a", "line": "two"}"#,
            r#"{"at": 5, "event": "log", "step": "b", "line": "three"}"#,
            r#"{"at": 6, "event": "step_finished", "step": "a", "cached": true, "summary": "done"}"#,
        ];
        for (number, event) in (1..).zip(events) {
            story.take(number, serde_json::from_str(event).expect("an event"));
        }
        let told: Vec<_> = story
            .steps
            .iter()
            .map(|step| (&*step.title, step.lines.join(","), step.started, step.ended))
            .collect();
        assert_eq!(
            told,
            [
                ("first", "one".to_owned(), 1, None),
                ("again", "two".to_owned(), 3, Some(6)),
                ("b", "three".to_owned(), 5, None),
            ]
        );
        assert_eq!(story.last, 6);
    }
}
