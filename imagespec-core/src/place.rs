//! Places in texts that people wrote, for errors that point at them.

use std::path::Path;

use crate::error::{BuildError, Cause};

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The whole line.
    pub content: &'a str,
}

impl<'a> Place<'a> {
    /// The place of a byte; the end, where there is no such byte.
    pub fn at(text: &'a str, byte: usize) -> Self {
        let byte = (0..=byte.min(text.len()))
            .rev()
            .find(|byte| text.is_char_boundary(*byte))
            .unwrap_or(0);
        let before = &text[..byte];
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: text[start..byte].chars().count() + 1,
            content: text[start..].lines().next().unwrap_or_default(),
        }
    }

    /// The place that a parser gives as numbers from 1.
    pub fn of(text: &'a str, line: usize, column: usize) -> Self {
        Self {
            line: line.max(1),
            column: column.max(1),
            content: text.lines().nth(line.saturating_sub(1)).unwrap_or_default(),
        }
    }

    /// The place in a file: `app.py:3:14`.
    pub fn in_file(&self, path: &Path) -> String {
        format!("{}:{}:{}", path.display(), self.line, self.column)
    }

    /// What is wrong, and the line with a mark of so many characters below the place.
    pub fn shown(&self, summary: &str, length: usize) -> String {
        let Self {
            line,
            column,
            content,
        } = self;
        let margin = " ".repeat(line.to_string().len());
        let before = (column - 1).min(content.chars().count());
        let indent = " ".repeat(before);
        let rest = content.chars().count() - before;
        let mark = "^".repeat(length.min(rest).max(1));
        format!("{summary}\n{margin} |\n{line} | {content}\n{margin} | {indent}{mark}")
    }

    /// An error of the input, with what is wrong and the line below it.
    pub fn error(&self, message: &str, path: &Path, summary: &str, length: usize) -> BuildError {
        let mut error = BuildError::input(format!("{message}: `{}`", self.in_file(path)));
        error.source = Some(Box::new(Cause {
            message: self.shown(summary, length),
            source: None,
        }));
        error
    }
}
