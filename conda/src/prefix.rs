//! The folder that a package was built in, and that its files name: replaced by the one it is installed in, as they
//! are read.

use std::io::{self, Read};

use memchr::memchr;
use memchr::memmem::Finder;

/// How much is read at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// Content with the folder replaced. In text it is replaced as it stands; in programs and libraries, whose size must
/// not change, the rest of the C string moves up and its end is filled with zeros.
pub(crate) struct Replaced<'a, R> {
    content: R,
    finder: Finder<'a>,
    prefix: &'a [u8],
    binary: bool,
    chunk: Box<[u8]>,
    /// What was read and not yet looked through, from `at` on.
    input: Vec<u8>,
    at: usize,
    ended: bool,
    /// How many zeros the current C string lacks at its end.
    owed: usize,
    /// What can be given away, from `given` on.
    output: Vec<u8>,
    given: usize,
}

impl<'a, R: Read> Replaced<'a, R> {
    /// Replaces `placeholder`, which in a binary must not be shorter than `prefix`.
    pub(crate) fn new(content: R, placeholder: &'a str, prefix: &'a str, binary: bool) -> Self {
        Self {
            content,
            finder: Finder::new(placeholder.as_bytes()),
            prefix: prefix.as_bytes(),
            binary,
            chunk: vec![0; CHUNK].into(),
            input: Vec::with_capacity(2 * CHUNK),
            at: 0,
            ended: false,
            owed: 0,
            output: Vec::with_capacity(2 * CHUNK),
            given: 0,
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.output.clear();
        self.given = 0;
        while self.output.is_empty() && !(self.ended && self.at == self.input.len()) {
            self.input.drain(..self.at);
            self.at = 0;
            let count = read_some(&mut self.content, &mut self.chunk)?;
            self.input.extend_from_slice(&self.chunk[..count]);
            self.ended = count == 0;
            while self.step() {}
        }
        if self.ended && self.output.is_empty() {
            // The last string has no end of its own.
            let owed = std::mem::take(&mut self.owed);
            self.output.resize(owed, 0);
        }
        Ok(())
    }

    /// Looks through some of the input. Says whether it got further.
    fn step(&mut self) -> bool {
        let placeholder = self.finder.needle().len();
        let rest = &self.input[self.at..];
        if rest.is_empty() {
            return false;
        }
        let found = self.finder.find(rest);
        if self.owed > 0
            && let Some(end) = memchr(0, rest)
            && found.is_none_or(|found| end < found)
        {
            self.output.extend_from_slice(&rest[..end]);
            self.output.resize(self.output.len() + self.owed, 0);
            self.owed = 0;
            self.at += end;
            return true;
        }
        if let Some(found) = found {
            self.output.extend_from_slice(&rest[..found]);
            self.output.extend_from_slice(self.prefix);
            if self.binary {
                self.owed += placeholder.saturating_sub(self.prefix.len());
            }
            self.at += found + placeholder;
            return true;
        }
        // Its beginning may be at the end of what there is.
        let held = if self.ended { 0 } else { placeholder - 1 };
        let safe = rest.len().saturating_sub(held);
        self.output.extend_from_slice(&rest[..safe]);
        self.at += safe;
        false
    }
}

fn read_some(content: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match content.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl<R: Read> Read for Replaced<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.output.len() {
            self.fill()?;
        }
        let ready = &self.output[self.given..];
        let count = ready.len().min(buffer.len());
        buffer[..count].copy_from_slice(&ready[..count]);
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(self.1).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn replaced(content: &[u8], binary: bool) -> Vec<u8> {
        let mut results: Vec<_> = [1, 2, 3, 5, 7, 64, 1 << 20]
            .into_iter()
            .map(|step| {
                let mut out = Vec::new();
                Replaced::new(Drip(content, step), "/placehold", "/opt", binary)
                    .read_to_end(&mut out)
                    .expect("bytes");
                out
            })
            .collect();
        let first = results.remove(0);
        assert!(results.iter().all(|other| *other == first), "{first:?}");
        first
    }

    #[test]
    fn text_names_the_new_folder() {
        for (theirs, ours) in [
            ("#!/placehold/bin/python\n", "#!/opt/bin/python\n"),
            ("/placehold:/placehold/x /place", "/opt:/opt/x /place"),
            ("/placehol/placehold", "/placehol/opt"),
            ("", ""),
        ] {
            assert_eq!(replaced(theirs.as_bytes(), false), ours.as_bytes());
        }
    }

    #[test]
    fn programs_keep_their_size_and_their_strings_end_in_zeros() {
        for (theirs, ours) in [
            ("a\0/placehold/lib\0b", "a\0/opt/lib\0\0\0\0\0\0\0b"),
            (
                "/placehold/a:/placehold/b\0c\0",
                "/opt/a:/opt/b\0\0\0\0\0\0\0\0\0\0\0\0\0c\0",
            ),
            ("x/placehold", "x/opt\0\0\0\0\0\0"),
            (
                "\0/placehold\0/placehold\0",
                "\0/opt\0\0\0\0\0\0\0/opt\0\0\0\0\0\0\0",
            ),
            ("nothing\0", "nothing\0"),
        ] {
            let found = replaced(theirs.as_bytes(), true);
            assert_eq!(String::from_utf8_lossy(&found), ours);
            assert_eq!(found.len(), theirs.len());
        }
    }

    #[test]
    fn large_content_is_the_same_as_replaced_at_once() {
        let mut content = Vec::new();
        for at in 0..40_000_u32 {
            content.extend(at.to_le_bytes());
            if at % 97 == 0 {
                content.extend(b"/placehold/lib");
            }
        }
        let text = String::from_utf8_lossy(&content).into_owned();
        let whole = text.replace("/placehold", "/opt");
        assert_eq!(replaced(text.as_bytes(), false), whole.as_bytes());
        assert_eq!(replaced(&content, true).len(), content.len());
    }
}
