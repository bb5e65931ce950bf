//! What an engine tells of a build, as a person who knows the spec would tell it.

use std::collections::HashMap;
use std::error::Error as _;

use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex};
use imagespec_core::dockerfile::Instruction;
use imagespec_core::error::BuildError;
use imagespec_core::event::{Progress, StepProgress};
use imagespec_core::mask::Mask;
use imagespec_dockerfile::{LastLines, failure};
use tonic::{Code, Status};

/// What an engine says of what it did not end for another's sake.
const CANCELLED: &str = "context canceled";

/// What is known of a build so far.
#[derive(Debug)]
pub(crate) struct Told<'a> {
    progress: Progress<'a>,
    instructions: &'a [Instruction],
    /// The number that the engine gives the first instruction.
    first: usize,
    mask: Mask,
    vertices: HashMap<String, State<'a>>,
}

#[derive(Debug, Default)]
struct State<'a> {
    /// The instruction that the engine does here, counted from 0.
    instruction: Option<usize>,
    step: Option<StepProgress<'a>>,
    is_over: bool,
    error: Option<String>,
    /// A line that is not whole yet.
    partial: Vec<u8>,
    last: LastLines,
    /// Bytes done and in all, of each thing that moves.
    bytes: HashMap<String, (u64, u64)>,
}

impl<'a> Told<'a> {
    pub(crate) fn new(progress: Progress<'a>, instructions: &'a [Instruction], mask: Mask) -> Self {
        Self {
            progress,
            instructions,
            first: 1,
            mask,
            vertices: HashMap::new(),
        }
    }

    /// Counts as an engine does that is lent its base: without it.
    pub(crate) fn without_base(self) -> Self {
        Self { first: 0, ..self }
    }

    /// Takes a status of the engine.
    pub(crate) fn take(&mut self, status: StatusResponse) {
        for vertex in &status.vertexes {
            self.begin(vertex);
        }
        for moved in status.statuses {
            let Some(state) = self.vertices.get_mut(&moved.vertex) else {
                continue;
            };
            let number = |n: i64| u64::try_from(n).unwrap_or_default();
            let bytes = (number(moved.current), number(moved.total));
            state.bytes.insert(moved.id, bytes);
            if let Some(step) = &state.step {
                let sum = |pick: fn(&(u64, u64)) -> u64| state.bytes.values().map(pick).sum();
                let (done, total): (u64, u64) = (sum(|bytes| bytes.0), sum(|bytes| bytes.1));
                if done > 0 {
                    step.advance(done, Some(total).filter(|total| *total >= done));
                }
            }
        }
        for log in status.logs {
            if let Some(state) = self.vertices.get_mut(&log.vertex) {
                state.log(&log.msg, &self.mask);
            }
        }
        // What a step did comes with its end.
        for vertex in status.vertexes {
            self.end(vertex);
        }
    }

    fn begin(&mut self, vertex: &Vertex) {
        let state = self.vertices.entry(vertex.digest.clone()).or_default();
        if !state.is_over
            && state.step.is_none()
            && (vertex.started.is_some() || vertex.completed.is_some())
        {
            state.instruction = number(&vertex.name)
                .and_then(|number| number.checked_sub(self.first))
                .filter(|at| *at < self.instructions.len());
            let title = match state.instruction {
                Some(at) => {
                    Some(self.instructions[at].title.clone()).filter(|title| !title.is_empty())
                }
                None => title(&vertex.name).map(str::to_owned),
            };
            let id = match state.instruction {
                Some(at) => format!("{}/{}", at + 1, self.instructions.len()),
                None => vertex.name.clone(),
            };
            state.step = title.map(|title| self.progress.step(id, title));
        }
    }

    fn end(&mut self, vertex: Vertex) {
        let state = self.vertices.entry(vertex.digest).or_default();
        if state.is_over {
            return;
        }
        if !vertex.error.is_empty() {
            state.error = Some(vertex.error);
            state.is_over = true;
        } else if vertex.completed.is_some() {
            state.is_over = true;
            state.flush(&self.mask);
            if let Some(step) = state.step.take() {
                let bytes: u64 = state.bytes.values().map(|bytes| bytes.0).sum();
                let summary = match bytes {
                    0 => "done".to_owned(),
                    bytes => format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10),
                };
                step.finish(vertex.cached, summary);
            }
        }
    }

    /// Why the build failed, by the field that asked for what failed.
    pub(crate) fn failure(mut self, status: &Status) -> BuildError {
        // What else was going on is cancelled when something fails.
        let is_cause = |state: &&mut State<'_>| {
            let error = state.error.as_deref();
            state.instruction.is_some() && error.is_some_and(|error| !error.contains(CANCELLED))
        };
        let failed = self.vertices.values_mut().find(is_cause);
        let Some(state) = failed else {
            return self.refusal(status);
        };
        state.flush(&self.mask);
        let lines = state.last.take();
        let at = state.instruction.unwrap_or_default();
        let error = state.error.take().unwrap_or_default();
        let exit = error
            .rsplit_once("exit code: ")
            .map(|(_, code)| code.trim());
        failure(
            &self.instructions[at],
            &lines,
            exit,
            &self.mask.apply(&error),
        )
    }

    fn refusal(&self, status: &Status) -> BuildError {
        let said = std::io::Error::other(self.mask.apply(status.message()));
        // What an engine says has no cause on this machine; a connection that breaks has.
        let is_lost = status.code() == Code::Unavailable || status.source().is_some();
        if is_lost {
            BuildError::unavailable("the container engine was lost during the build")
                .hint("start it again; what it had built is not built again")
        } else {
            BuildError::failed("the container engine cannot build the image")
        }
        .caused_by(&said)
    }
}

impl State<'_> {
    fn log(&mut self, bytes: &[u8], mask: &Mask) {
        for byte in bytes {
            match byte {
                b'\n' => self.flush(mask),
                // A terminal would write over it.
                _ if self.partial.last() == Some(&b'\r') => {
                    self.partial.clear();
                    self.partial.push(*byte);
                }
                byte => self.partial.push(*byte),
            }
        }
    }

    fn flush(&mut self, mask: &Mask) {
        let line = std::mem::take(&mut self.partial);
        let line = String::from_utf8_lossy(&line);
        let line = mask.apply(line.trim_end_matches('\r'));
        if line.is_empty() {
            return;
        }
        if let Some(step) = &self.step {
            step.log(line.clone());
        }
        self.last.push(line);
    }
}

/// The number of an instruction in what an engine calls it, `[2/7] RUN …`.
fn number(name: &str) -> Option<usize> {
    let (inside, _) = name.strip_prefix('[')?.split_once(']')?;
    let (at, _) = inside.split_whitespace().last()?.split_once('/')?;
    at.parse().ok()
}

/// What a person is told of what the engine does beside the instructions.
fn title(name: &str) -> Option<&'static str> {
    match name {
        "[internal] load build context" => Some("send files to the engine"),
        "exporting to image" | "exporting to docker image format" => Some("write the image"),
        "sending tarball" => Some("take the image"),
        _ if name.contains("oci-layout://") => Some("start from the base"),
        _ if name.starts_with("importing cache manifest") => Some("look for layers in caches"),
        _ if name.starts_with("exporting cache") => Some("write layers to caches"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
