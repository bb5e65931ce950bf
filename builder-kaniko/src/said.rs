//! What an executor says of its build, as a person who knows the spec would say it.

use imagespec_core::dockerfile::Instruction;
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::event::{Progress, StepProgress};
use imagespec_core::mask::Mask;
use imagespec_dockerfile::{LastLines, failure};
use serde::Deserialize;

/// Instructions that a Dockerfile's own list counts.
const COUNTED: [&str; 4] = ["ADD ", "COPY ", "RUN ", "WORKDIR "];

/// How the last words of an executor begin, which it says in no format.
const LAST_WORDS: [&str; 4] = [
    "error building image: ",
    "error checking push permissions",
    "error pushing image: ",
    "error resolving ",
];

/// A line of the executor's own, in the format that it is told to have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    level: String,
    msg: String,
    #[serde(default, rename = "time")]
    _time: String,
}

/// What is known of a build so far.
#[derive(Debug)]
pub(crate) struct Said<'a> {
    progress: Progress<'a>,
    instructions: &'a [Instruction],
    mask: Mask,
    /// The number of the instruction that is done now.
    at: usize,
    step: Option<StepProgress<'a>>,
    cached: bool,
    pushes: bool,
    /// The names of the image, and the digests that were pushed under them. Layers for other builds are pushed before, in
    /// the same words.
    names: Vec<String>,
    pushed: Vec<String>,
    last: LastLines,
    errors: Vec<String>,
}

impl<'a> Said<'a> {
    pub(crate) fn new(
        progress: Progress<'a>,
        instructions: &'a [Instruction],
        names: Vec<String>,
        mask: Mask,
    ) -> Self {
        Self {
            progress,
            instructions,
            mask,
            at: 0,
            step: None,
            cached: false,
            pushes: false,
            names,
            pushed: Vec::new(),
            last: LastLines::default(),
            errors: Vec::new(),
        }
    }

    /// Takes a line of the log.
    pub(crate) fn take(&mut self, line: &str) {
        let line = self.mask.apply(line.trim_end_matches('\r'));
        match serde_json::from_str::<Line>(&line) {
            Ok(Line { level, msg, .. }) => self.own(&level, &msg),
            Err(_) if LAST_WORDS.iter().any(|words| line.starts_with(words)) => {
                self.errors.push(line);
            }
            Err(_) => self.print(line),
        }
    }

    fn own(&mut self, level: &str, said: &str) {
        match level {
            "error" | "fatal" | "panic" => self.errors.push(said.to_owned()),
            "warning" => self.print(said.to_owned()),
            _ if self.at == 0
                && said.starts_with("Retrieving image manifest")
                && self.step.is_none() =>
            {
                self.begin(0);
            }
            _ if COUNTED.iter().any(|keyword| said.starts_with(keyword)) => {
                // What is in the cache is not unpacked, and the base may not be, either.
                if self.at == 0 && self.step.is_none() {
                    self.begin(0);
                }
                self.end();
                self.at += 1;
                self.begin(self.at);
            }
            _ if said.starts_with("Found cached layer") => self.cached = true,
            _ if self.names_it(said) && !self.pushes => {
                self.end();
                self.pushes = true;
                self.step = Some(self.progress.step("push", "push the image"));
            }
            _ if said.starts_with("Pushed ") && self.pushes => {
                let digest = said.rsplit_once('@').map(|(_, digest)| digest.to_owned());
                self.pushed.extend(digest);
            }
            _ => {}
        }
    }

    /// Whether it is about to push the image under one of its names.
    fn names_it(&self, said: &str) -> bool {
        let name = said.strip_prefix("Pushing image to ");
        name.is_some_and(|name| self.names.iter().any(|own| own == name.trim_end()))
    }

    /// The digest of the image, once it was pushed under all its names: the pod says so a second later.
    pub(crate) fn pushed(&self) -> Option<&str> {
        let (first, others) = self.pushed.split_first()?;
        let is_one = others.iter().all(|other| other == first);
        (is_one && self.pushed.len() == self.names.len()).then_some(first)
    }

    fn begin(&mut self, at: usize) {
        self.last = LastLines::default();
        self.cached = false;
        let Some(instruction) = self.instructions.get(at) else {
            return;
        };
        if !instruction.title.is_empty() {
            let id = format!("{}/{}", at + 1, self.instructions.len());
            self.step = Some(self.progress.step(id, instruction.title.clone()));
        }
    }

    fn end(&mut self) {
        if let Some(step) = self.step.take() {
            step.finish(self.cached, "done");
        }
    }

    fn print(&mut self, line: String) {
        if line.is_empty() {
            return;
        }
        if let Some(step) = &self.step {
            step.log(line.clone());
        }
        self.last.push(line);
    }

    /// Says that all of it ended well.
    pub(crate) fn done(mut self) {
        self.end();
    }

    /// Why the build failed, by the field that asked for what failed. `code` is the executor's exit code.
    pub(crate) fn failure(mut self, code: i32) -> BuildError {
        let said = self.errors.join("\n");
        let lines = self.last.take();
        let status = said.rsplit_once("exit status ").map(|(_, rest)| rest);
        let exit = status.map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit());
            &rest[..end.unwrap_or(rest.len())]
        });
        match self.instructions.get(self.at) {
            Some(instruction) if !self.pushes && self.step.is_some() => {
                let lines = if exit.is_some() || said.is_empty() {
                    lines
                } else {
                    Vec::new()
                };
                failure(instruction, &lines, exit, &said)
            }
            _ => {
                let said = if said.is_empty() {
                    lines.join("\n")
                } else {
                    said
                };
                let message = if self.pushes {
                    "the executor cannot push the image".to_owned()
                } else {
                    format!("the executor cannot build the image: it ended with code {code}")
                };
                let failed =
                    BuildError::failed(message).caused_by(&std::io::Error::other(said.clone()));
                hinted(failed, &said)
            }
        }
    }

    /// Whether what it said tells of a context that did not come whole.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.at == 0
            && self
                .errors
                .iter()
                .chain(self.last.iter())
                .any(|line| line.contains("EOF"))
    }
}

/// What helps against what registries say.
pub(crate) fn hinted(error: BuildError, said: &str) -> BuildError {
    let refused = |hint: &str| {
        let error = BuildError {
            kind: ErrorKind::Unavailable,
            ..error.clone()
        };
        error.field("registry").hint(hint)
    };
    // Files are denied, too.
    let said = said.to_lowercase().replace("permission denied", "");
    if said.contains("unauthorized")
        || said.contains("denied")
        || said.contains("authentication required")
    {
        return refused(
            "log in on this machine, or name a Secret of the cluster with option `registry_secret`",
        );
    }
    if said.contains("x509:") {
        return refused("`[registries.\"HOST\"] ca = \"FILE\"` names the authority of a registry");
    }
    if said.contains("connection refused") || said.contains("no such host") {
        return refused("the cluster must reach the registry under that name, too");
    }
    error
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use imagespec_core::event::{BuildEvent, Event};

    use super::*;

    fn instructions() -> Vec<Instruction> {
        [
            ("start from x", "base_image"),
            ("install Python packages", "packages"),
            ("run `false`", "commands"),
            ("", "name"),
        ]
        .map(|(title, field)| Instruction {
            title: title.to_owned(),
            field: field.to_owned(),
        })
        .into()
    }

    fn own(level: &str, said: &str) -> String {
        serde_json::json!({ "level": level, "msg": said, "time": "2026-01-01T00:00:00Z" })
            .to_string()
    }

    /// The steps that began and ended, and the error.
    fn tell(lines: &[String]) -> (Vec<String>, BuildError) {
        let told = Mutex::new(Vec::new());
        let sink = |event: Event| {
            let text = match event.event {
                BuildEvent::StepStarted { step, title } => format!("{step} {title}"),
                BuildEvent::StepFinished { step, cached, .. } => {
                    format!("{step} over, cached {cached}")
                }
                BuildEvent::Log { step, line } => format!("{step}: {line}"),
                _ => return,
            };
            told.lock().expect("told").push(text);
        };
        let instructions = instructions();
        let mut said = Said::new(
            Progress::new("app", &sink),
            &instructions,
            vec!["x:1".to_owned()],
            Mask::default(),
        );
        for line in lines {
            said.take(line);
        }
        let error = said.failure(1);
        (told.into_inner().expect("told"), error)
    }

    #[test]
    fn instructions_are_steps_and_what_they_print_is_theirs() {
        let lines = [
            own("info", "Retrieving image manifest x"),
            own("info", "Unpacking rootfs as cmd RUN a requires it."),
            own("info", "RUN a"),
            own("info", "Found cached layer, extracting to filesystem"),
            own("info", "USER 0:0"),
            own("info", "RUN [\"/bin/sh\"]"),
            "printed".to_owned(),
            "error building image: waiting for process to exit: exit status 3".to_owned(),
        ];
        let (told, error) = tell(&lines);
        let expected = [
            "1/4 start from x",
            "1/4 over, cached false",
            "2/4 install Python packages",
            "2/4 over, cached true",
            "3/4 run `false`",
            "3/4: printed",
        ];
        assert_eq!(told, expected);
        assert_eq!(error.message, "cannot run `false`: it ended with code 3");
        assert_eq!(error.field.as_deref(), Some("commands"));
        assert_eq!(
            error.source.map(|cause| cause.message).as_deref(),
            Some("printed")
        );
    }

    #[test]
    fn an_image_is_pushed_when_it_is_under_all_its_names() {
        let progress = Progress::new("app", &imagespec_core::event::Silent);
        let mut said = Said::new(
            progress,
            &[],
            ["x:1", "x:2"].map(str::to_owned).into(),
            Mask::default(),
        );
        for (line, pushed) in [
            ("Pushing image to x/cache:0123", None),
            ("Pushed x/cache@sha256:aa", None),
            ("Pushing image to x:1", None),
            ("Pushed x:1@sha256:bb", None),
            ("Pushing image to x:2", None),
            ("Pushed x:2@sha256:bb", Some("sha256:bb")),
        ] {
            said.take(&own("info", line));
            assert_eq!(said.pushed(), pushed, "{line}");
        }
    }

    #[test]
    fn a_refused_push_says_what_helps() {
        let lines = [own(
            "fatal",
            "error checking push permissions: UNAUTHORIZED: authentication required",
        )];
        let (_, error) = tell(&lines);
        assert_eq!(error.field.as_deref(), Some("registry"));
        assert!(
            error.hints[0].contains("registry_secret"),
            "{:?}",
            error.hints
        );
    }
}
