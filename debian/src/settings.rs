//! apt's own settings: apt.conf(5), as far as they say what is trusted and how the network is reached.

use std::path::Path;

use crate::error::DebianError;
use crate::sources::sorted;

/// The settings of a machine's apt, in the order they are read.
#[derive(Debug, Clone, Default)]
pub struct Settings(Vec<(String, String)>);

impl Settings {
    /// Reads `apt.conf.d` and `apt.conf` of the folder `apt`; what is not there counts as empty.
    pub fn read(apt: &Path) -> Result<Self, DebianError> {
        let mut settings = Self::default();
        let mut files = sorted(&apt.join("apt.conf.d"))?;
        files.retain(|path| is_read(path));
        files.push(apt.join("apt.conf"));
        for path in files.iter().filter(|path| path.is_file()) {
            settings.add(&fs_err::read_to_string(path)?);
        }
        Ok(settings)
    }

    /// The value of a setting, the last one that is set; names count whatever their case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev();
        found
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .next()
    }

    /// The value of a setting that is on or off.
    pub fn flag(&self, name: &str) -> Option<bool> {
        flag(self.get(name)?)
    }

    fn add(&mut self, text: &str) {
        let mut scopes: Vec<String> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for token in tokens(text) {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open => scopes.push(words.drain(..).next().unwrap_or_default()),
                Token::Close => {
                    scopes.pop();
                    words.clear();
                }
                Token::End => {
                    let mut given = words.drain(..);
                    if let (Some(name), Some(value)) = (given.next(), given.next()) {
                        let names = scopes.iter().map(String::as_str).chain([name.as_str()]);
                        let name = names.filter(|name| !name.is_empty()).collect::<Vec<_>>();
                        self.0.push((name.join("::"), value));
                    }
                }
            }
        }
    }
}

/// Whether apt would read a file of a folder of parts: no extension, or `conf`.
fn is_read(path: &Path) -> bool {
    path.extension().is_none_or(|extension| extension == "conf")
}

/// A value that says yes or no, as apt reads it.
pub(crate) fn flag(value: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
    if is(&["no", "false", "without", "off", "disable", "0"]) {
        Some(false)
    } else if is(&["yes", "true", "with", "on", "enable", "1"]) {
        Some(true)
    } else {
        None
    }
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skip = |end: &str| rest.find(end).map_or(rest.len(), |at| at + end.len());
        let used = match first {
            ' ' | '\t' | '\r' | '\n' => 1,
            '#' => skip("\n"),
            '/' if rest.starts_with("//") => skip("\n"),
            '/' if rest.starts_with("/*") => skip("*/"),
            '{' | '}' | ';' => {
                found.push(match first {
                    '{' => Token::Open,
                    '}' => Token::Close,
                    _ => Token::End,
                });
                1
            }
            '"' => {
                let end = rest[1..].find('"').map_or(rest.len(), |at| at + 2);
                found.push(Token::Word(rest[1..end].trim_end_matches('"').to_owned()));
                end
            }
            _ => {
                let ends = |c: char| c.is_whitespace() || "{};\"".contains(c);
                let end = rest.find(ends).unwrap_or(rest.len());
                found.push(Token::Word(rest[..end].to_owned()));
                end
            }
        };
        rest = &rest[used..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_flat_and_nested() {
        let mut settings = Settings::default();
        settings.add(
            "// no\n# no\n/* Acquire::Check-Date \"no\"; */\nAcquire::Check-Valid-Until \"false\";\nAcquire { http { Proxy \"http://proxy.example:3128\"; }; Languages { \"none\"; }; Retries 3; }\n",
        );
        assert_eq!(settings.flag("acquire::check-valid-until"), Some(false));
        assert_eq!(settings.flag("Acquire::Check-Date"), None);
        assert_eq!(
            settings.get("Acquire::http::Proxy"),
            Some("http://proxy.example:3128")
        );
        assert_eq!(settings.get("Acquire::Retries"), Some("3"));
        settings.add("Acquire::Check-Valid-Until true;");
        assert_eq!(settings.flag("Acquire::Check-Valid-Until"), Some(true));
    }

    #[test]
    fn damaged_settings_are_left_out() {
        let mut settings = Settings::default();
        settings.add("}}; a { \"b");
        assert_eq!(settings.get("a"), None);
    }
}
