//! What executor `native` answers: events of its build, and how it ended.

use imagespec_core::builder::BuiltImage;
use imagespec_core::error::BuildError;
use imagespec_core::event::{BuildEvent, Progress};
use imagespec_core::mask::Mask;
use imagespec_core::protocol::Answer;
use imagespec_dockerfile::LastLines;

use crate::assignment::CUT_SHORT;

/// What is known of a build so far.
#[derive(Debug)]
pub(crate) struct Answers<'a> {
    progress: Progress<'a>,
    mask: Mask,
    built: Option<BuiltImage>,
    digest: Option<String>,
    error: Option<BuildError>,
    last: LastLines,
}

impl<'a> Answers<'a> {
    pub(crate) fn new(progress: Progress<'a>, mask: Mask) -> Self {
        Self {
            progress,
            mask,
            built: None,
            digest: None,
            error: None,
            last: LastLines::default(),
        }
    }

    /// Takes a line of the log.
    pub(crate) fn take(&mut self, line: &str) {
        let line = self.mask.apply(line);
        match serde_json::from_str(&line) {
            Ok(Answer::Event { event }) => self.progress.emit(event),
            Ok(Answer::Built { image }) => {
                self.digest = image.digest.map(|digest| digest.to_string());
                self.built = Some(image);
            }
            Ok(Answer::Error { error }) => self.error = Some(error),
            // Whatever else a program says: how it panicked.
            Ok(_) | Err(_) if line.is_empty() => {}
            Ok(_) | Err(_) => {
                self.progress.emit(BuildEvent::Log {
                    step: "executor".to_owned(),
                    line: line.clone(),
                });
                self.last.push(line);
            }
        }
    }

    /// The digest of the image, once it was pushed.
    pub(crate) fn pushed(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The image as the executor tells of it.
    pub(crate) fn built(self) -> Option<BuiltImage> {
        self.built
    }

    /// Why the build failed.
    pub(crate) fn failure(mut self, code: i32) -> BuildError {
        self.error.take().unwrap_or_else(|| {
            let lines = self.last.take().join("\n");
            let error = BuildError::failed(format!("the executor ended with code {code}"));
            if lines.is_empty() {
                error
            } else {
                error.caused_by(&std::io::Error::other(lines))
            }
        })
    }

    /// Whether the context did not come whole.
    pub(crate) fn is_cut_short(&self) -> bool {
        let error = self.error.as_ref();
        error.is_some_and(|error| error.message == CUT_SHORT)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use imagespec_core::event::Event;
    use serde_json::json;

    use super::*;

    #[test]
    fn events_go_on_and_the_end_is_kept() {
        let heard = Mutex::new(Vec::new());
        let sink = |event: Event| {
            let mut heard = heard.lock().expect("a lock");
            heard.push(serde_json::to_value(event).expect("JSON"));
        };
        let mut answers = Answers::new(Progress::new("app", &sink), Mask::of(&[]));
        for line in [
            r#"{"type":"event","event":{"event":"notice","message":"hello"}}"#,
            "a line of nobody",
            "",
        ] {
            answers.take(line);
        }
        assert_eq!(
            *heard.lock().expect("a lock"),
            [
                json!({"image": "app", "event": "notice", "message": "hello"}),
                json!({"image": "app", "event": "log", "step": "executor", "line": "a line of nobody"}),
            ]
        );
        assert_eq!(answers.pushed(), None);
        let error = answers.failure(101);
        assert_eq!(error.message, "the executor ended with code 101");

        let mut answers = Answers::new(Progress::new("app", &sink), Mask::of(&[]));
        let error = Answer::Error {
            error: BuildError::unavailable(CUT_SHORT),
        };
        answers.take(&serde_json::to_string(&error).expect("JSON"));
        assert!(answers.is_cut_short());
        assert_eq!(answers.failure(1).message, CUT_SHORT);
    }
}
