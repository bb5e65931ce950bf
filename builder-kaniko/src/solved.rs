//! What executor `buildkit` says of its build: its client's lines of JSON, and words.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use imagespec_core::dockerfile::Instruction;
use imagespec_core::error::BuildError;
use imagespec_core::event::Progress;
use imagespec_core::mask::Mask;
use imagespec_dockerfile::{LastLines, Log, Moved, Status, Told, Vertex};
use serde::{Deserialize, Deserializer};

use crate::assignment::CUT_SHORT;
use crate::buildkit::{NO_DAEMON, PUSHED};
use crate::said::hinted;

/// A line of the client's.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default, deserialize_with = "or_none")]
    vertexes: Vec<VertexLine>,
    #[serde(default, deserialize_with = "or_none")]
    statuses: Vec<MovedLine>,
    #[serde(default, deserialize_with = "or_none")]
    logs: Vec<LogLine>,
}

#[derive(Debug, Deserialize)]
struct VertexLine {
    digest: String,
    #[serde(default)]
    name: String,
    started: Option<String>,
    completed: Option<String>,
    #[serde(default)]
    cached: bool,
    #[serde(default)]
    error: String,
}

#[derive(Debug, Deserialize)]
struct MovedLine {
    #[serde(default)]
    id: String,
    vertex: String,
    #[serde(default)]
    current: i64,
    #[serde(default)]
    total: i64,
}

#[derive(Debug, Deserialize)]
struct LogLine {
    vertex: String,
    #[serde(default)]
    data: String,
}

/// A list that may be null, as those of Go are.
fn or_none<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(from).map(Option::unwrap_or_default)
}

impl From<Line> for Status {
    fn from(line: Line) -> Self {
        let number = |n: i64| u64::try_from(n).unwrap_or_default();
        let vertexes = line.vertexes.into_iter().map(|vertex| Vertex {
            digest: vertex.digest,
            name: vertex.name,
            started: vertex.started.is_some(),
            completed: vertex.completed.is_some(),
            cached: vertex.cached,
            error: vertex.error,
        });
        let moved = line.statuses.into_iter().map(|moved| Moved {
            id: moved.id,
            vertex: moved.vertex,
            current: number(moved.current),
            total: number(moved.total),
        });
        let logs = line.logs.into_iter().map(|log| Log {
            vertex: log.vertex,
            bytes: STANDARD.decode(log.data).unwrap_or_default(),
        });
        Self {
            vertexes: vertexes.collect(),
            moved: moved.collect(),
            logs: logs.collect(),
        }
    }
}

/// What is known of a build so far.
#[derive(Debug)]
pub(crate) struct Solved<'a> {
    told: Told<'a>,
    words: LastLines,
    pushed: Option<String>,
}

impl<'a> Solved<'a> {
    pub(crate) fn new(progress: Progress<'a>, instructions: &'a [Instruction], mask: Mask) -> Self {
        Self {
            told: Told::new(progress, instructions, mask),
            words: LastLines::default(),
            pushed: None,
        }
    }

    /// Takes a line of the log.
    pub(crate) fn take(&mut self, line: &str) {
        let line = line.trim_end_matches('\r');
        if let Some(digest) = line.strip_prefix(PUSHED) {
            self.pushed = Some(digest.to_owned());
        } else if let Some(said) = line.starts_with('{').then(|| serde_json::from_str(line)) {
            // A line of the cluster's may have been cut.
            self.told.take(said.map(Line::into).unwrap_or_default());
        } else if !line.is_empty() {
            self.words.push(self.told.masked(line));
        }
    }

    /// The digest of the image, once it was pushed: the pod says so a second later.
    pub(crate) fn pushed(&self) -> Option<&str> {
        self.pushed.as_deref()
    }

    /// Why the build failed, by the field that asked for what failed. `code` is the container's exit code.
    pub(crate) fn failure(mut self, code: i32) -> BuildError {
        self.told.failure().unwrap_or_else(|| {
            let said = self.words.take().join("\n");
            if code == NO_DAEMON {
                return BuildError::unavailable("BuildKit does not start in its pod")
                    .caused_by(&std::io::Error::other(said))
                    .hint("its namespace must let it make user namespaces: `docs/guide/kubernetes.md` says how")
                    .hint("option `executor=native` needs no rights, `executor=kaniko` fewer");
            }
            let message = format!("BuildKit cannot build the image: it ended with code {code}");
            let error = BuildError::failed(message).caused_by(&std::io::Error::other(said.clone()));
            hinted(error, &said)
        })
    }

    /// Whether the context did not come whole.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.words.iter().any(|line| line == CUT_SHORT)
    }
}

#[cfg(test)]
mod tests {
    use imagespec_core::event::Silent;

    use super::*;

    fn solved(lines: &[&str]) -> BuildError {
        let instructions = [("start from x", "base_image"), ("run `false`", "commands")];
        let instructions = instructions.map(|(title, field)| Instruction {
            title: title.to_owned(),
            field: field.to_owned(),
        });
        let progress = Progress::new("app", &Silent);
        let mut solved = Solved::new(progress, &instructions, Mask::default());
        for line in lines {
            solved.take(line);
        }
        solved.failure(1)
    }

    #[test]
    fn a_command_that_fails_is_told_of_by_its_field() {
        let error = solved(&[
            r#"{"vertexes":[{"digest":"a","name":"[2/2] RUN false","started":"2026-01-01T00:00:00Z"}],"statuses":null}"#,
            r#"{"logs":[{"vertex":"a","stream":1,"data":"bm8K","timestamp":"2026-01-01T00:00:00Z"}]}"#,
            r#"{"vertexes":[{"digest":"a","name":"[2/2] RUN false","error":"process did not complete: exit code: 3"}]}"#,
            r#"{"vertexes":[{"dig"#,
            "error: failed to solve: process did not complete: exit code: 3",
        ]);
        assert_eq!(error.message, "cannot run `false`: it ended with code 3");
        assert_eq!(error.field.as_deref(), Some("commands"));
        let cause = error.source.map(|cause| cause.message);
        assert_eq!(cause.as_deref(), Some("no"));
    }

    #[test]
    fn a_refused_push_says_what_helps() {
        let error = solved(&["error: failed to solve: failed to push x: 401 Unauthorized"]);
        assert_eq!(error.field.as_deref(), Some("registry"));
        assert!(error.hints[0].contains("registry_secret"));
    }

    #[test]
    fn a_daemon_that_does_not_start_is_no_refusal() {
        let mut solved = Solved::new(Progress::new("app", &Silent), &[], Mask::default());
        solved.take("mkdir /run: permission denied");
        let error = solved.failure(NO_DAEMON);
        assert_eq!(error.message, "BuildKit does not start in its pod");
        assert_eq!(error.field, None);
    }

    #[test]
    fn the_digest_and_a_context_that_was_cut_are_seen() {
        let mut solved = Solved::new(Progress::new("app", &Silent), &[], Mask::default());
        assert_eq!(solved.pushed(), None);
        solved.take("imagespec: pushed sha256:aa");
        assert_eq!(solved.pushed(), Some("sha256:aa"));
        solved.take("gzip: stdin: unexpected end of file");
        assert!(!solved.is_cut_short());
        solved.take(CUT_SHORT);
        assert!(solved.is_cut_short());
    }
}
