//! Why an instruction failed, as a person who knows the spec would say it.

use std::collections::VecDeque;
use std::io;

use imagespec_core::dockerfile::Instruction;
use imagespec_core::error::BuildError;

/// How a program of ours says what is wrong with a declaration: then come a field and the problem.
const OURS: &str = "imagespec: ";

/// How many of a failed command's last lines are repeated.
const LINES: usize = 40;

/// The last lines that a command printed.
#[derive(Debug, Default)]
pub struct LastLines(VecDeque<String>);

impl LastLines {
    /// Adds a line, in the place of the oldest where there are many.
    pub fn push(&mut self, line: String) {
        if self.0.len() == LINES {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    /// The lines, oldest first.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0).into()
    }

    /// The lines, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &String> {
        self.0.iter()
    }
}

/// The error of an instruction that failed, from the last lines that it printed, the exit code where there is one, and
/// what whoever builds says of it, which counts where nothing was printed.
pub fn failure(
    instruction: &Instruction,
    lines: &[String],
    exit: Option<&str>,
    said: &str,
) -> BuildError {
    let wrong = lines.iter().rev().find_map(|line| line.strip_prefix(OURS));
    if let Some((field, problem)) = wrong.and_then(|wrong| wrong.split_once(": ")) {
        return BuildError::input(problem).field(field);
    }
    let Instruction { title, field } = instruction;
    let message = match exit {
        Some(code) => format!("cannot {title}: it ended with code {code}"),
        None => format!("cannot {title}"),
    };
    let said = if lines.is_empty() {
        said.to_owned()
    } else {
        lines.join("\n")
    };
    BuildError::failed(message)
        .field(field.as_str())
        .caused_by(&io::Error::other(said))
}
