//! `.dockerignore`, as the Docker builder reads it: a path is ignored when the last pattern that matches it, or
//! a folder above it, is not an exception.

use std::io;
use std::path::Path;

use regex::Regex;

#[derive(Debug, Default)]
pub(super) struct DockerIgnore {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    /// Of a path that the pattern, or one of the folders above, matches; `None`: nothing does.
    paths: Option<Regex>,
    exception: bool,
}

/// The most characters of a pattern: paths have no more.
const LONGEST: usize = 4096;

impl DockerIgnore {
    pub(super) fn load(root: &Path) -> io::Result<Self> {
        match fs_err::read_to_string(root.join(".dockerignore")) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> io::Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let Some((exception, glob)) = glob(line) else {
                continue;
            };
            let wrong = |problem: &str| {
                let message = format!("`.dockerignore`: line {}: {problem}", index + 1);
                io::Error::new(io::ErrorKind::InvalidData, message)
            };
            if glob.len() > LONGEST {
                return Err(wrong("the pattern is longer than 4096 characters"));
            }
            let paths = regex(&glob).map(|regex| Regex::new(&regex)).transpose();
            let paths = paths.map_err(|error| wrong(&error.to_string()))?;
            patterns.push(Pattern { paths, exception });
        }
        Ok(Self { patterns })
    }

    pub(super) fn ignores(&self, path: &str, folder: bool) -> bool {
        let exceptions = self.patterns.iter().any(|pattern| pattern.exception);
        // A folder that is ignored may hold an exception, and must be looked into.
        if folder && exceptions {
            return false;
        }
        self.patterns.iter().fold(false, |ignored, pattern| {
            let decides = pattern.exception == ignored
                && pattern
                    .paths
                    .as_ref()
                    .is_some_and(|paths| paths.is_match(path));
            if decides { !ignored } else { ignored }
        })
    }
}

/// The glob of a line, cleaned as a path is, and whether it is an exception; `None` where there is none.
fn glob(line: &str) -> Option<(bool, Vec<char>)> {
    if line.starts_with('#') {
        return None;
    }
    let line = line.trim();
    let (exception, glob) = line
        .strip_prefix('!')
        .map_or((false, line), |rest| (true, rest.trim()));
    let mut parts: Vec<&str> = Vec::new();
    for part in glob.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if glob.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| (exception, parts.join("/").chars().collect()))
}

/// What a path looks like that a glob matches, itself or with a folder above it: `*` and `?` stay within a
/// component, `**` does not, `[…]` is a class, and `\` takes the next character as it is. The regular expressions
/// of the library match in linear time, whoever wrote the glob.
fn regex(mut glob: &[char]) -> Option<String> {
    let mut regex = "(?s)^".to_owned();
    loop {
        glob = match glob {
            [] => return Some(regex + "(?:/.*)?$"),
            ['*', '*', '/', rest @ ..] => {
                regex += "(?:.*/)?";
                rest
            }
            ['*', '*', rest @ ..] => {
                regex += ".*";
                rest
            }
            ['*', rest @ ..] => {
                regex += "[^/]*";
                rest
            }
            ['?', rest @ ..] => {
                regex += "[^/]";
                rest
            }
            ['[', rest @ ..] => {
                let (class, rest) = class(rest)?;
                regex += &class;
                rest
            }
            ['\\', c, rest @ ..] | [c, rest @ ..] => {
                regex += &regex::escape(c.encode_utf8(&mut [0; 4]));
                rest
            }
        };
    }
}

/// The class whose `[` has been read, and what follows it; `None` where it has no end, or holds nothing.
fn class(glob: &[char]) -> Option<(String, &[char])> {
    let (negated, mut glob) = match glob {
        ['^', rest @ ..] => (true, rest),
        _ => (false, glob),
    };
    let mut ranges = Vec::new();
    let rest = loop {
        let (from, to, rest) = match glob {
            [']', rest @ ..] if !ranges.is_empty() => break rest,
            [from, '-', to, rest @ ..] if *to != ']' => (*from, *to, rest),
            ['\\', c, rest @ ..] | [c, rest @ ..] => (*c, *c, rest),
            [] => return None,
        };
        ranges.push((from, to));
        glob = rest;
    };
    let range = |(from, to): &(char, char)| {
        let [from, to] = [u32::from(*from), u32::from(*to)];
        (from <= to).then(|| format!("\\x{{{from:x}}}-\\x{{{to:x}}}"))
    };
    let inside: String = ranges.iter().filter_map(range).collect();
    let class = match (inside.is_empty(), negated) {
        (true, false) => return None,
        (true, true) => "[^/]".to_owned(),
        (false, false) => format!("[[{inside}]&&[^/]]"),
        (false, true) => format!("[^/{inside}]"),
    };
    Some((class, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> DockerIgnore {
        DockerIgnore::parse(text).expect("patterns")
    }

    #[test]
    fn patterns_match_as_docker_matches_them() {
        for (pattern, path, expected) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "dir/file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("**/dir", "a/b/dir", true),
            ("**/dir/file", "dir/file", true),
            ("**/*.txt", "a/b.txt", true),
            ("*.txt", "a/b.txt", false),
            ("a**/*.txt", "ab/dir/file.txt", true),
            ("a[b-d]e", "ace", true),
            ("a[^b-d]e", "aze", true),
            ("a[^b-d]e", "ace", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("/dir", "dir/file", true),
            ("dir/", "dir/file", true),
            ("./x/../dir", "dir", true),
            ("a/b?", "a/bc", true),
            ("a/b?", "a/b/", false),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcdef", false),
            ("[", "a", false),
            ("[z-a]", "b", false),
            ("a[^z-a]", "ab", true),
            ("[!-0]", "/", false),
            ("a(b|c)+", "a(b|c)+", true),
            ("a\nb", "a", true),
        ] {
            assert_eq!(
                parse(pattern).ignores(path, false),
                expected,
                "{pattern} on {path}"
            );
        }
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let ignore = parse("# note\n\ndir\n!dir/keep\ndir/keep/not\n");
        assert!(ignore.ignores("dir/a", false));
        assert!(!ignore.ignores("dir/keep", false));
        assert!(!ignore.ignores("dir/keep/a", false));
        assert!(ignore.ignores("dir/keep/not/a", false));
        assert!(!ignore.ignores("dir", true), "an exception may be inside");
        assert!(parse("dir").ignores("dir", true));
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_time() {
        let ignore = parse(&("**/*a".repeat(60) + "z"));
        assert!(!ignore.ignores(&"a/".repeat(2000), false));
    }

    #[test]
    fn a_pattern_that_is_too_large_is_named() {
        for length in [10, 4096] {
            assert!(parse(&"[^é]".repeat(length / 4)).ignores(&"a".repeat(length / 4), false));
        }
        let error =
            DockerIgnore::parse(&format!("a\n{}", "?".repeat(5000))).expect_err("too large");
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
