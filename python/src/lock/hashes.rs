//! Hashes that a person's own files demand of what is installed.

use std::collections::BTreeMap;

use imagespec_core::digest::Digest;

use super::poetry::normalised;

/// The digests that are allowed, by normalised name.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    known: BTreeMap<String, Vec<Digest>>,
    /// Whether what is not listed is refused.
    strict: bool,
}

impl Hashes {
    /// Those of a lock, which lists everything.
    pub(super) fn of_lock(pinned: &str) -> Self {
        let mut hashes = Self::default();
        hashes.read(pinned);
        hashes.strict = true;
        hashes
    }

    /// Adds those of a requirements file. What it lists without hashes stays free, unless it says `--require-hashes`.
    pub(super) fn read(&mut self, requirements: &str) {
        let joined = requirements.replace("\\\r\n", " ").replace("\\\n", " ");
        for line in joined.lines().map(str::trim) {
            self.strict |= line == "--require-hashes";
            let end = line.find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c));
            let name = &line[..end.unwrap_or(line.len())];
            let mut hashes = line
                .split_whitespace()
                .take_while(|word| !word.starts_with('#'))
                .filter_map(|word| word.strip_prefix("--hash="))
                .peekable();
            if line.starts_with(|c: char| c.is_ascii_alphanumeric()) && hashes.peek().is_some() {
                let known = self.known.entry(normalised(name)).or_default();
                known.extend(hashes.filter_map(|hash| hash.parse::<Digest>().ok()));
            }
        }
    }

    /// Whether a package that has no digest may be installed.
    pub(super) fn allow_any(&self, name: &str) -> bool {
        !self.strict && !self.known.contains_key(&normalised(name))
    }

    /// Whether a file of a package may be installed.
    pub(super) fn allow(&self, name: &str, digest: &Digest) -> bool {
        match self.known.get(&normalised(name)) {
            Some(known) => known.contains(digest),
            None => !self.strict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_binds_its_package_only() {
        let (right, wrong) = (Digest::of("right"), Digest::of("wrong"));
        let text = format!(
            "# a --hash={wrong}\nOne_Two[extra] == 1.0 ; python_version > '3' \\\n    --hash={right} # --hash={wrong}\nfree>=1\nother==1 --hash=sha512:00\n"
        );
        let mut hashes = Hashes::default();
        hashes.read(&text);
        assert!(hashes.allow("one-two", &right) && !hashes.allow("one-two", &wrong));
        assert!(hashes.allow("free", &wrong) && !hashes.allow("other", &wrong));
        assert!(hashes.allow_any("free") && !hashes.allow_any("One.two"));
        hashes.read("--require-hashes\n");
        assert!(!hashes.allow("free", &wrong));
        assert!(!Hashes::of_lock("").allow("free", &wrong));
    }
}
