//! What a build says while it runs. Events are the whole interface to whoever reports progress; the
//! outcome of a build is its return value, never an event.

use serde::{Deserialize, Serialize};

/// One thing that happened in the build of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The image it happened to, by the name the person gave it.
    pub image: String,
    /// What happened.
    #[serde(flatten)]
    pub event: BuildEvent,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BuildEvent {
    /// A builder took the image on.
    Started {
        /// The builder's name.
        builder: String,
        /// `[registry/]name:tag`.
        reference: String,
    },
    /// A step began. Steps may overlap.
    StepStarted {
        /// Identifies the step within this image's build.
        step: String,
        /// What the step does, as a person would say it: `resolve 12 requirements`.
        title: String,
    },
    /// A step moved on.
    StepProgress {
        /// The step.
        step: String,
        /// Bytes done so far.
        done: u64,
        /// Bytes in all, where that is known.
        total: Option<u64>,
    },
    /// A step ended well.
    StepFinished {
        /// The step.
        step: String,
        /// Whether earlier work was used instead of doing it again.
        cached: bool,
        /// A few words on the result: `23 wheels, 48.1 MB`.
        summary: String,
    },
    /// A line that a command of the build printed.
    Log {
        /// The step.
        step: String,
        /// The line, without its end.
        line: String,
    },
    /// Something the person should know that is no error.
    Notice {
        /// What it is.
        message: String,
    },
}

/// Where events go. Called from any thread; it must not block for long.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: Event);

    /// Asks the person to choose one of several ways, each a letter and what it means; the first is what happens
    /// without a word. `None` where nobody is there to be asked. Blocks until there is an answer.
    fn ask(&self, question: &str, ways: &[(char, &str)]) -> Option<char> {
        let _ = (question, ways);
        None
    }
}

impl<F: Fn(Event) + Send + Sync> EventSink for F {
    fn emit(&self, event: Event) {
        self(event);
    }
}

/// The events of one image's build: an [`EventSink`] that knows which image it speaks of.
#[derive(Clone, Copy)]
pub struct Progress<'a> {
    image: &'a str,
    sink: &'a dyn EventSink,
}

impl std::fmt::Debug for Progress<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress")
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

impl<'a> Progress<'a> {
    /// Events of `image`, sent to `sink`.
    pub const fn new(image: &'a str, sink: &'a dyn EventSink) -> Self {
        Self { image, sink }
    }

    /// The image they are of, by the name the person gave it.
    pub const fn image(&self) -> &'a str {
        self.image
    }

    /// Sends an event.
    pub fn emit(&self, event: BuildEvent) {
        self.sink.emit(Event {
            image: self.image.to_owned(),
            event,
        });
    }

    /// Asks the person: see [`EventSink::ask`].
    pub fn ask(&self, question: &str, ways: &[(char, &str)]) -> Option<char> {
        self.sink.ask(question, ways)
    }

    /// Says that a step began; the [`StepProgress`] it returns says how it goes on.
    pub fn step(&self, step: impl Into<String>, title: impl Into<String>) -> StepProgress<'a> {
        let step = step.into();
        self.emit(BuildEvent::StepStarted {
            step: step.clone(),
            title: title.into(),
        });
        StepProgress {
            progress: *self,
            step,
        }
    }

    /// Tells the person something that is no error.
    pub fn notice(&self, message: impl Into<String>) {
        self.emit(BuildEvent::Notice {
            message: message.into(),
        });
    }
}

/// A step that has begun. A step that is dropped without [`StepProgress::finish`] has failed, and the
/// build's error says why.
#[derive(Debug, Clone)]
pub struct StepProgress<'a> {
    progress: Progress<'a>,
    step: String,
}

impl StepProgress<'_> {
    /// Says how far the step is, in bytes.
    pub fn advance(&self, done: u64, total: Option<u64>) {
        self.progress.emit(BuildEvent::StepProgress {
            step: self.step.clone(),
            done,
            total,
        });
    }

    /// Passes on a line that a command printed.
    pub fn log(&self, line: impl Into<String>) {
        self.progress.emit(BuildEvent::Log {
            step: self.step.clone(),
            line: line.into(),
        });
    }

    /// Says that the step ended well.
    pub fn finish(self, cached: bool, summary: impl Into<String>) {
        let summary = summary.into();
        self.progress.emit(BuildEvent::StepFinished {
            step: self.step,
            cached,
            summary,
        });
    }
}

/// An event sink that drops everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl EventSink for Silent {
    fn emit(&self, _: Event) {}
}
