//! What git ignores: `.gitignore` of every folder from the top of the work tree down, `.git/info/exclude`, and
//! never a file that is tracked.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use ::ignore::Match;
use ::ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::index;

#[derive(Debug)]
pub(super) struct GitIgnore {
    top: PathBuf,
    /// The source folder relative to the top, with a slash behind it unless it is the top.
    prefix: String,
    tracked: BTreeSet<String>,
    /// Rules by the folder they are in, relative to the top; the empty folder's include `info/exclude`.
    rules: BTreeMap<String, Gitignore>,
    /// Folders that are ignored, and looked into all the same because something in them is tracked.
    ignored: HashSet<String>,
}

impl GitIgnore {
    /// The rules around `root`, or `None` outside a work tree.
    pub(super) fn load(root: &Path) -> io::Result<Option<Self>> {
        let root = fs_err::canonicalize(root)?;
        let Some(top) = root.ancestors().find(|folder| folder.join(".git").exists()) else {
            return Ok(None);
        };
        let below = root
            .strip_prefix(top)
            .ok()
            .and_then(Path::to_str)
            .unwrap_or_default();
        let prefix = if below.is_empty() {
            String::new()
        } else {
            format!("{below}/")
        };
        let git = git_dir(top);
        let tracked = git.as_deref().map(tracked).transpose()?.unwrap_or_default();
        let mut ignore = Self {
            top: top.to_path_buf(),
            prefix,
            tracked,
            rules: BTreeMap::new(),
            ignored: HashSet::new(),
        };
        let mut builder = GitignoreBuilder::new(top);
        // Rules that cannot be read are rules that are not there, as for git.
        if let Some(git) = git {
            let _ = builder.add(common_dir(&git).join("info/exclude"));
        }
        let _ = builder.add(top.join(".gitignore"));
        if let Ok(rules) = builder.build() {
            ignore.rules.insert(String::new(), rules);
        }
        let mut folder = String::new();
        for part in below.split('/').filter(|part| !part.is_empty()) {
            folder = if folder.is_empty() {
                part.to_owned()
            } else {
                format!("{folder}/{part}")
            };
            ignore.read(&folder);
        }
        Ok(Some(ignore))
    }

    pub(super) fn enter(&mut self, folder: &str) {
        self.read(&format!("{}{folder}", self.prefix));
    }

    fn read(&mut self, folder: &str) {
        if self.inside_ignored(folder) || self.matches(folder, true) {
            self.ignored.insert(folder.to_owned());
        }
        let file = self.top.join(folder).join(".gitignore");
        if self.rules.contains_key(folder) || !file.is_file() {
            return;
        }
        let mut builder = GitignoreBuilder::new(self.top.join(folder));
        let _ = builder.add(file);
        if let Ok(rules) = builder.build() {
            self.rules.insert(folder.to_owned(), rules);
        }
    }

    pub(super) fn ignores(&self, path: &str, folder: bool) -> bool {
        let path = format!("{}{path}", self.prefix);
        if folder {
            let inside = format!("{path}/");
            if self
                .tracked
                .range(inside.clone()..)
                .next()
                .is_some_and(|tracked| tracked.starts_with(&inside))
            {
                return false;
            }
        } else if self.tracked.contains(&path) {
            return false;
        }
        // Nothing below an ignored folder can be included again.
        self.inside_ignored(&path) || self.matches(&path, folder)
    }

    /// Whether the folder that a path is in, which has been entered, is ignored.
    fn inside_ignored(&self, path: &str) -> bool {
        let around = path.rsplit_once('/');
        !self.ignored.is_empty() && around.is_some_and(|(around, _)| self.ignored.contains(around))
    }

    /// What the rules nearest to a path say of it alone.
    fn matches(&self, path: &str, folder: bool) -> bool {
        let mut around = path;
        loop {
            around = around.rfind('/').map_or("", |slash| &around[..slash]);
            if let Some(rules) = self.rules.get(around) {
                match rules.matched(self.top.join(path), folder) {
                    Match::Ignore(_) => return true,
                    Match::Whitelist(_) => return false,
                    Match::None => {}
                }
            }
            if around.is_empty() {
                return false;
            }
        }
    }
}

/// The paths that a work tree tracks; none before its first `git add`.
fn tracked(git: &Path) -> io::Result<BTreeSet<String>> {
    let file = git.join("index");
    let bytes = match fs_err::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        read => read?,
    };
    let config = fs_err::read_to_string(common_dir(git).join("config")).unwrap_or_default();
    let long = config.lines().any(|line| {
        line.split_once('=').is_some_and(|(key, value)| {
            key.trim().eq_ignore_ascii_case("objectformat") && value.trim() == "sha256"
        })
    });
    // Guessing that nothing is tracked would leave files out of the image without a word.
    index::tracked(&bytes, if long { 32 } else { 20 }).ok_or_else(|| {
        let message = format!("git's index cannot be read: `{}`", file.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// The folder of a work tree's own git data: `.git`, or where a file of that name points.
fn git_dir(top: &Path) -> Option<PathBuf> {
    let git = top.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let text = fs_err::read_to_string(&git).ok()?;
    Some(top.join(text.strip_prefix("gitdir:")?.trim()))
}

/// The folder of the git data that all work trees of a repository share.
fn common_dir(git: &Path) -> PathBuf {
    fs_err::read_to_string(git.join("commondir"))
        .map_or_else(|_| git.to_path_buf(), |text| git.join(text.trim()))
}
