//! Which files flytekit leaves out of a source folder's digest.
//!
//! Its rules see a path as it was walked: relative to the folder where that was named from the root, and with the
//! folder's own name in front where it was not.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use regex::Regex;

/// flytekit's rules for one folder.
#[derive(Debug)]
pub(super) struct Rules {
    /// What git ignores, as it prints it.
    git: BTreeSet<String>,
    docker: Vec<Pattern>,
}

/// A line of `.dockerignore`, as the library for Docker in Python reads it.
#[derive(Debug)]
struct Pattern {
    is_exception: bool,
    depth: usize,
    regex: Regex,
}

impl Rules {
    pub(super) fn load(root: &Path) -> io::Result<Self> {
        let mut docker = Vec::new();
        let file = root.join(".dockerignore");
        if file.is_file() {
            let text = fs_err::read_to_string(&file)?;
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            for line in lines {
                docker.extend(Pattern::parse(line.trim())?);
            }
        }
        docker.extend(Pattern::parse("!.dockerignore")?);
        Ok(Self {
            git: ignored_by_git(root),
            docker,
        })
    }

    /// Whether a file is left out.
    pub(super) fn ignore(&self, path: &str) -> bool {
        is_usual(path) || self.git.contains(&posix(path)) || self.is_docker(path)
    }

    fn is_docker(&self, path: &str) -> bool {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let above = split(folder);
        let (name, mut ignored) = (path.to_lowercase(), false);
        for pattern in &self.docker {
            let mut matched = pattern.regex.is_match(&name);
            if !matched && !folder.is_empty() && pattern.depth <= above.len() {
                let above = above[..pattern.depth].join("/").to_lowercase();
                matched = pattern.regex.is_match(&above);
            }
            if matched {
                ignored = !pattern.is_exception;
            }
        }
        ignored
    }
}

/// What git prints that it ignores; nothing without git, and outside of its work trees.
fn ignored_by_git(root: &Path) -> BTreeSet<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-io", "--exclude-standard"])
        .current_dir(root)
        .stdin(Stdio::null())
        .output();
    match listed {
        Ok(listed) if listed.status.success() => {
            let text = String::from_utf8_lossy(&listed.stdout);
            text.lines().map(str::to_owned).collect()
        }
        _ => BTreeSet::new(),
    }
}

/// What is left out of every folder. A star stands for any text.
fn is_usual(path: &str) -> bool {
    path.as_bytes().ends_with(b".pyc")
        || path == ".cache"
        || path.starts_with(".cache/")
        || path.starts_with("__pycache__/")
        || path.contains("/__pycache__/")
}

/// A path without parts that say nothing.
fn posix(path: &str) -> String {
    split(path).join("/")
}

fn split(path: &str) -> Vec<&str> {
    let parts = path.split('/');
    parts.filter(|part| !matches!(*part, "" | ".")).collect()
}

impl Pattern {
    fn parse(line: &str) -> io::Result<Option<Self>> {
        let (is_exception, line) = match line.strip_prefix('!') {
            Some(line) => (true, line),
            None => (false, line),
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in split(line.trim()) {
            if part == ".." {
                parts.pop();
            } else {
                parts.push(part);
            }
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let text = translated(&parts.join("/").to_lowercase());
        let regex = Regex::new(&text).map_err(|_| {
            let message = format!("cannot read a pattern of `.dockerignore`: `{line}`");
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        let depth = parts.len();
        Ok(Some(Self {
            is_exception,
            depth,
            regex,
        }))
    }
}

/// A pattern as a regular expression.
fn translated(pattern: &str) -> String {
    let pattern: Vec<char> = pattern.chars().collect();
    let (mut out, mut at) = ("^".to_owned(), 0);
    while let Some(c) = pattern.get(at) {
        at += 1;
        match c {
            '*' if pattern.get(at) == Some(&'*') => {
                at += 1;
                if pattern.get(at) == Some(&'/') {
                    at += 1;
                }
                out.push_str(if at < pattern.len() { "(.*/)?" } else { ".*" });
            }
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            '[' => {
                let mut end = at;
                if pattern.get(end) == Some(&'!') {
                    end += 1;
                }
                if pattern.get(end) == Some(&']') {
                    end += 1;
                }
                while pattern.get(end).is_some_and(|c| *c != ']') {
                    end += 1;
                }
                if end >= pattern.len() {
                    out.push_str("\\[");
                    continue;
                }
                out.push('[');
                for (number, c) in pattern[at..end].iter().enumerate() {
                    match c {
                        '!' if number == 0 => out.push('^'),
                        '-' => out.push('-'),
                        // In Python none of these means anything more in a class.
                        '^' | '[' | ']' | '&' | '~' | '\\' => out.extend(['\\', *c]),
                        c => out.push(*c),
                    }
                }
                out.push(']');
                at = end + 1;
            }
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out.push('$');
    out
}
