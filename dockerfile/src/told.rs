//! What `BuildKit`, and whoever speaks as it does, tells of a build, as a person who knows the spec would tell it.

use std::collections::HashMap;

use imagespec_core::dockerfile::Instruction;
use imagespec_core::error::BuildError;
use imagespec_core::event::{Progress, StepProgress};
use imagespec_core::mask::Mask;

use crate::failure::{LastLines, failure};

/// What an engine says of what it did not end for another's sake.
const CANCELLED: &str = "context canceled";

/// What happened since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// What is done, as it is now.
    pub vertexes: Vec<Vertex>,
    /// What moves in it.
    pub moved: Vec<Moved>,
    /// What is printed.
    pub logs: Vec<Log>,
}

/// One thing that is done: an instruction, or something beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vertex {
    /// Tells it from others.
    pub digest: String,
    /// What it is called: `[2/7] RUN …`.
    pub name: String,
    /// Whether it has begun.
    pub started: bool,
    /// Whether it has ended.
    pub completed: bool,
    /// Whether there was nothing to do.
    pub cached: bool,
    /// Why it failed, or nothing.
    pub error: String,
}

/// How far something of a vertex is, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// What moves.
    pub id: String,
    /// The digest of the vertex.
    pub vertex: String,
    /// What is done.
    pub current: u64,
    /// All of it, where that is known.
    pub total: u64,
}

/// What a vertex prints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// The digest of the vertex.
    pub vertex: String,
    /// Bytes, which need not end where a line does.
    pub bytes: Vec<u8>,
}

/// What is known of a build so far.
#[derive(Debug)]
pub struct Told<'a> {
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
    /// Of a Dockerfile's instructions, with what a `mask` hides hidden.
    pub fn new(progress: Progress<'a>, instructions: &'a [Instruction], mask: Mask) -> Self {
        Self {
            progress,
            instructions,
            first: 1,
            mask,
            vertices: HashMap::new(),
        }
    }

    /// Counts as an engine does that is lent its base: without it.
    #[must_use]
    pub fn without_base(self) -> Self {
        Self { first: 0, ..self }
    }

    /// Takes a status.
    pub fn take(&mut self, status: Status) {
        for vertex in &status.vertexes {
            self.begin(vertex);
        }
        for moved in status.moved {
            let Some(state) = self.vertices.get_mut(&moved.vertex) else {
                continue;
            };
            state.bytes.insert(moved.id, (moved.current, moved.total));
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
                state.log(&log.bytes, &self.mask);
            }
        }
        // What a step did comes with its end.
        for vertex in status.vertexes {
            self.end(vertex);
        }
    }

    fn begin(&mut self, vertex: &Vertex) {
        let state = self.vertices.entry(vertex.digest.clone()).or_default();
        if !state.is_over && state.step.is_none() && (vertex.started || vertex.completed) {
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
        } else if vertex.completed {
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

    /// Why the build failed, by the field that asked for what failed; nothing where no instruction did.
    pub fn failure(&mut self) -> Option<BuildError> {
        // What else was going on is cancelled when something fails.
        let is_cause = |state: &&mut State<'_>| {
            let error = state.error.as_deref();
            state.instruction.is_some() && error.is_some_and(|error| !error.contains(CANCELLED))
        };
        let state = self.vertices.values_mut().find(is_cause)?;
        state.flush(&self.mask);
        let lines = state.last.take();
        let at = state.instruction.unwrap_or_default();
        let error = state.error.take().unwrap_or_default();
        let exit = error
            .rsplit_once("exit code: ")
            .map(|(_, code)| code.trim());
        let said = self.mask.apply(&error);
        Some(failure(&self.instructions[at], &lines, exit, &said))
    }

    /// A text without what the mask hides.
    pub fn masked(&self, text: &str) -> String {
        self.mask.apply(text)
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
