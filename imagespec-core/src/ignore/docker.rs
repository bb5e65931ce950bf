//! `.dockerignore`, as the Docker builder reads it: a path is ignored when the last pattern that matches it, or
//! a folder above it, is not an exception.

use std::io;
use std::path::Path;

#[derive(Debug, Default)]
pub(super) struct DockerIgnore {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    glob: Vec<char>,
    exception: bool,
}

impl DockerIgnore {
    pub(super) fn load(root: &Path) -> io::Result<Self> {
        match fs_err::read_to_string(root.join(".dockerignore")) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let patterns = lines.filter_map(|line| {
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
            (!parts.is_empty()).then(|| Pattern {
                glob: parts.join("/").chars().collect(),
                exception,
            })
        });
        Self {
            patterns: patterns.collect(),
        }
    }

    pub(super) fn ignores(&self, path: &str, folder: bool) -> bool {
        let exceptions = self.patterns.iter().any(|pattern| pattern.exception);
        // A folder that is ignored may hold an exception, and must be looked into.
        if folder && exceptions {
            return false;
        }
        let ends = path
            .match_indices('/')
            .map(|(index, _)| index)
            .chain([path.len()]);
        let prefixes: Vec<Vec<char>> = ends.map(|end| path[..end].chars().collect()).collect();
        self.patterns.iter().fold(false, |ignored, pattern| {
            if pattern.exception != ignored {
                return ignored;
            }
            let matched = prefixes.iter().any(|prefix| matches(&pattern.glob, prefix));
            if matched { !pattern.exception } else { ignored }
        })
    }
}

/// Whether a whole path matches: `*` and `?` stay within a component, `**` does not, `[…]` is a class, and `\`
/// takes the next character as it is.
fn matches(glob: &[char], path: &[char]) -> bool {
    match glob {
        [] => path.is_empty(),
        ['*', '*', '/', rest @ ..] => {
            matches(rest, path)
                || (0..path.len())
                    .any(|index| path[index] == '/' && matches(rest, &path[index + 1..]))
        }
        ['*', '*', rest @ ..] => (0..=path.len()).any(|index| matches(rest, &path[index..])),
        ['*', rest @ ..] => {
            let component = path.iter().position(|c| *c == '/').unwrap_or(path.len());
            (0..=component).any(|index| matches(rest, &path[index..]))
        }
        ['?', rest @ ..] => path.first().is_some_and(|c| *c != '/') && matches(rest, &path[1..]),
        ['[', rest @ ..] => match (class(rest), path.split_first()) {
            (Some((ranges, negated, rest)), Some((c, path))) => {
                let inside = ranges.iter().any(|(from, to)| (from..=to).contains(&c));
                *c != '/' && inside != negated && matches(rest, path)
            }
            _ => false,
        },
        ['\\', c, rest @ ..] | [c, rest @ ..] => {
            path.first() == Some(c) && matches(rest, &path[1..])
        }
    }
}

type Class<'a> = (Vec<(char, char)>, bool, &'a [char]);

/// The ranges of a class whose `[` has been read, whether it is negated, and what follows it.
fn class(glob: &[char]) -> Option<Class<'_>> {
    let (negated, mut glob) = match glob {
        ['^', rest @ ..] => (true, rest),
        _ => (false, glob),
    };
    let mut ranges = Vec::new();
    loop {
        match glob {
            [']', rest @ ..] if !ranges.is_empty() => return Some((ranges, negated, rest)),
            [from, '-', to, rest @ ..] if *to != ']' => {
                ranges.push((*from, *to));
                glob = rest;
            }
            ['\\', c, rest @ ..] | [c, rest @ ..] => {
                ranges.push((*c, *c));
                glob = rest;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            assert_eq!(
                DockerIgnore::parse(pattern).ignores(path, false),
                expected,
                "{pattern} on {path}"
            );
        }
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let ignore = DockerIgnore::parse("# note\n\ndir\n!dir/keep\ndir/keep/not\n");
        assert!(ignore.ignores("dir/a", false));
        assert!(!ignore.ignores("dir/keep", false));
        assert!(!ignore.ignores("dir/keep/a", false));
        assert!(ignore.ignores("dir/keep/not/a", false));
        assert!(!ignore.ignores("dir", true), "an exception may be inside");
        assert!(DockerIgnore::parse("dir").ignores("dir", true));
    }
}
