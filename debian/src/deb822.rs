//! The format of control files, package indexes and releases: deb822(5).

use std::io::{self, BufRead};

/// A paragraph: fields in the order they stand, folded lines joined by newlines, without their leading blank.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paragraph(Vec<(String, String)>);

/// The most bytes of one paragraph; the largest of a real archive's index has some 30 KiB, a release that
/// lists every index some 300 KiB.
const PARAGRAPH_LIMIT: usize = 8 << 20;

impl Paragraph {
    /// The value of a field, whatever the case of its name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The fields in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    fn line(&mut self, line: &str) -> Result<(), io::Error> {
        if line.starts_with([' ', '\t']) {
            let Some((_, value)) = self.0.last_mut() else {
                return Err(invalid("a folded line before any field"));
            };
            value.push('\n');
            value.push_str(&line[1..]);
            return Ok(());
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| invalid("a line without a colon"))?;
        self.0.push((name.to_owned(), value.trim().to_owned()));
        Ok(())
    }
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Calls `each` with every paragraph of `input`, which is read once and never held as a whole. Lines that
/// start with `#` are comments.
pub fn read(
    input: &mut dyn BufRead,
    mut each: impl FnMut(Paragraph) -> io::Result<()>,
) -> io::Result<()> {
    let mut paragraph = Paragraph::default();
    let mut line = Vec::new();
    let mut size = 0;
    loop {
        line.clear();
        let count =
            io::Read::take(&mut *input, PARAGRAPH_LIMIT as u64).read_until(b'\n', &mut line)?;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        if text.trim().is_empty() {
            if !paragraph.0.is_empty() {
                each(std::mem::take(&mut paragraph))?;
            }
            size = 0;
            if count == 0 {
                return Ok(());
            }
            continue;
        }
        size += count;
        if size > PARAGRAPH_LIMIT {
            return Err(invalid("a paragraph that is too long"));
        }
        if !text.starts_with('#') {
            paragraph.line(text)?;
        }
    }
}

/// All paragraphs of a small text.
pub fn parse(text: &str) -> io::Result<Vec<Paragraph>> {
    let mut paragraphs = Vec::new();
    read(&mut text.as_bytes(), |paragraph| {
        paragraphs.push(paragraph);
        Ok(())
    })?;
    Ok(paragraphs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_keep_fields_and_folds() {
        let read = parse("# c\nA: 1\nB:\n x\n .\n y\n\n\nC: 2").expect("paragraphs");
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].get("a"), Some("1"));
        assert_eq!(read[0].get("B"), Some("\nx\n.\ny"));
        assert_eq!(read[1].get("C"), Some("2"));
    }

    #[test]
    fn what_is_no_paragraph_is_refused() {
        assert!(parse(" folded").is_err());
        assert!(parse("no colon").is_err());
    }
}
