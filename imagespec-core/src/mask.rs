//! Secrets of a declaration: hidden in what builds print.

use crate::context::SecretMount;

/// The largest secret whose words are looked for in what is printed, in bytes.
const LARGEST: u64 = 1 << 20;
/// From how many characters on a word may be a secret.
const SHORTEST: usize = 8;
/// What stands in a secret's place.
const MASKED: &str = "********";

/// Hides words of secrets in what builds print.
#[derive(Clone, Default)]
pub struct Mask {
    /// The longest first.
    words: Vec<String>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask").finish_non_exhaustive()
    }
}

impl Mask {
    /// Hides the words of secret files; what cannot be read hides nothing.
    pub fn of(secrets: &[SecretMount]) -> Self {
        let mut words: Vec<String> = Vec::new();
        for secret in secrets {
            let small = fs_err::metadata(&secret.source).is_ok_and(|file| file.len() <= LARGEST);
            let read = || fs_err::read(&secret.source).ok();
            let bytes = small.then(read).flatten().unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let separators = |c: char| c.is_whitespace() || "\"'=:@,/".contains(c);
            let parts = text.lines().flat_map(|line| line.split(separators));
            words.extend(text.lines().map(str::trim).chain(parts).map(str::to_owned));
        }
        words.retain(|word| word.chars().count() >= SHORTEST && word != "password");
        words.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        words.dedup();
        Self { words }
    }

    /// `line` without secrets.
    pub fn apply(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for word in &self.words {
            if line.contains(word) {
                line = line.replace(word, MASKED);
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_secrets_are_hidden() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("secret");
        let text = "machine h login me password hunter2-hunter2\n[x]\ntoken = \"abcdefgh/ij\"\n";
        fs_err::write(&source, text).expect("a file");
        let target = "/run/x".into();
        let mask = Mask::of(&[SecretMount { source, target }]);
        assert_eq!(
            mask.apply("a hunter2-hunter2 b abcdefgh, the password of me"),
            "a ******** b ********, the password of me"
        );
        assert_eq!(Mask::default().apply("hunter2-hunter2"), "hunter2-hunter2");
    }
}
