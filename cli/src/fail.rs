//! Errors as a person reads them, on standard error.

use std::error::Error as _;
use std::io::{self, Write};

use imagespec_core::error::BuildError;
use imagespec_core::login::redacted;

const RED: &str = "\u{1b}[1;31m";
const CYAN: &str = "\u{1b}[1;36m";
const PLAIN: &str = "\u{1b}[0m";

/// Prints what happened, why, and what to do next. Colours are left out where nobody sees them, and an error
/// that nobody can be told is told to nobody.
pub(crate) fn print(error: &BuildError) {
    let _ = write(&mut anstream::stderr().lock(), error);
}

fn write(out: &mut impl Write, error: &BuildError) -> io::Result<()> {
    writeln!(out, "{RED}error:{PLAIN} {}", printable(&error.message))?;
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        writeln!(out, "  caused by: {}", printable(first))?;
        for line in lines {
            writeln!(out, "    {}", printable(line))?;
        }
        source = cause.source();
    }
    for hint in &error.hints {
        writeln!(out, "{CYAN}hint:{PLAIN} {}", printable(hint))?;
    }
    out.flush()
}

/// A text without the control characters a file or a server may have put into it, and without the logins of URLs:
/// the line of a declaration that is shown may hold one.
fn printable(text: &str) -> String {
    let visible = |c: char| {
        if c.is_control() && c != '\n' { ' ' } else { c }
    };
    redacted(text).chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_and_hints_have_lines_of_their_own() {
        let error = BuildError::input("the inner\u{1b}[2J https://me:secret@host")
            .caused_by(&io::Error::other("its cause\nand more"))
            .context("the outer")
            .hint("do this");
        let mut text = Vec::new();
        write(&mut text, &error).expect("memory");
        let text =
            anstream::adapter::strip_str(std::str::from_utf8(&text).expect("UTF-8")).to_string();
        insta::assert_snapshot!(text, @r"
    error: the outer
      caused by: the inner [2J https://host
      caused by: its cause
        and more
    hint: do this
    ");
    }
}
