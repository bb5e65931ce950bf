//! Links to repositories in requirements: fetched here, since uv would need git where it builds.

use std::path::{Path, PathBuf};

use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::login::IndexLogins;
use toml::{Table, Value};

use super::workshop::CHECKOUTS;
use crate::git::{Checkout, Repository, checkout};

/// The repositories of a declaration.
#[derive(Debug, Default)]
pub(super) struct Checkouts {
    pub(super) all: Vec<Checkout>,
    /// Links as they are written, and what stands in their place.
    written: Vec<(String, String)>,
    /// The ids of those whose commit the declaration names itself.
    pinned: Vec<String>,
    /// Files of this machine that the declaration names by their URLs.
    pub(super) files: Vec<PathBuf>,
}

impl Checkouts {
    /// `text` with every link to a repository replaced by the folder that has its files in a workshop.
    pub(super) async fn replace(
        &mut self,
        host: &Host,
        logins: &IndexLogins,
        text: &str,
    ) -> Result<String, BuildError> {
        let mut replaced = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, link, after)) = next(rest) {
            replaced.push_str(before);
            replaced.push_str(&self.folder(host, logins, link).await?);
            rest = after;
        }
        replaced.push_str(rest);
        self.files.extend(local_files(text).map(Path::to_owned));
        Ok(replaced)
    }

    /// A `pyproject.toml` in which the sources that uv takes from repositories (`[tool.uv.sources]`) are folders.
    pub(super) async fn replace_sources(
        &mut self,
        host: &Host,
        logins: &IndexLogins,
        text: &str,
    ) -> Result<String, BuildError> {
        let Ok(mut project) = text.parse::<Table>() else {
            // uv says where it is wrong.
            return Ok(text.to_owned());
        };
        let mut sources = Some(&mut project);
        for name in ["tool", "uv", "sources"] {
            sources = sources.and_then(|table| table.get_mut(name)?.as_table_mut());
        }
        let mut found = false;
        for (_, value) in sources.into_iter().flatten() {
            // One source, or several with markers.
            let each = match value {
                Value::Array(several) => several.iter_mut().collect(),
                one => vec![one],
            };
            for source in each.into_iter().filter_map(Value::as_table_mut) {
                let Some(link) = source_link(source) else {
                    continue;
                };
                let folder = self.folder(host, logins, &link).await?;
                let path = folder.trim_start_matches("file://").to_owned();
                for key in ["git", "rev", "tag", "branch", "subdirectory", "lfs"] {
                    source.remove(key);
                }
                source.insert("path".to_owned(), Value::String(path));
                found = true;
            }
        }
        Ok(if found {
            project.to_string()
        } else {
            text.to_owned()
        })
    }

    async fn folder(
        &mut self,
        host: &Host,
        logins: &IndexLogins,
        link: &str,
    ) -> Result<String, BuildError> {
        if let Some((_, folder)) = self.written.iter().find(|(written, _)| written == link) {
            return Ok(folder.clone());
        }
        let repository = Repository::parse(link)?;
        let made = checkout(
            host,
            logins,
            &repository.url,
            repository.reference.as_deref(),
            true,
        )
        .await?;
        let id = made.id();
        let mut folder = format!("file://{CHECKOUTS}/{id}");
        if let Some(subdirectory) = &repository.subdirectory {
            if !made.folder.join(subdirectory).is_dir() {
                let message = format!("the repository has no folder `{subdirectory}`: `{link}`");
                return Err(BuildError::input(message));
            }
            folder.push('/');
            folder.push_str(subdirectory);
        }
        if repository.is_pinned() {
            self.pinned.push(id);
        }
        if !self.all.contains(&made) {
            self.all.push(made);
        }
        self.written.push((link.to_owned(), folder.clone()));
        Ok(folder)
    }

    /// What is said of folders of a workshop, said of the links that stand for them.
    pub(super) fn as_written(&self, said: &str) -> String {
        let mut longest: Vec<_> = self.written.iter().collect();
        longest.sort_by_key(|(_, folder)| std::cmp::Reverse(folder.len()));
        longest
            .into_iter()
            .fold(said.to_owned(), |said, (written, folder)| {
                said.replace(folder, written)
            })
    }

    /// The checkout that a folder of a workshop is in, and the folder in it.
    pub(super) fn find(&self, folder: &str) -> Option<(&Checkout, Option<String>)> {
        let (made, at) = self.all.iter().find_map(|made| {
            let id = made.id();
            Some((made, folder.find(&id)? + id.len()))
        })?;
        let inner = folder[at..].trim_matches('/');
        Some((
            made,
            Some(inner.to_owned()).filter(|inner| !inner.is_empty()),
        ))
    }

    /// Whether the declaration names the commit of a checkout itself.
    pub(super) fn is_pinned(&self, made: &Checkout) -> bool {
        self.pinned.contains(&made.id())
    }
}

/// The next link to a repository: what is before it, the link, and what is after it. Comments have none.
fn next(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find("git+")?;
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let before = &text[line..at];
        let in_comment = before.match_indices('#').any(|(hash, _)| {
            before[..hash].trim().is_empty() || before[..hash].ends_with([' ', '\t'])
        });
        let is_start = !before.ends_with(|c: char| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let length = text[at..]
            .find(|c: char| c.is_whitespace() || "\"'`<>".contains(c))
            .unwrap_or(text.len() - at);
        if !in_comment && is_start && text[at..at + length].contains("://") {
            return Some((&text[..at], &text[at..at + length], &text[at + length..]));
        }
        from = at + "git+".len();
    }
}

/// A source of uv as a link, if it is a repository.
fn source_link(source: &Table) -> Option<String> {
    let text = |key: &str| source.get(key)?.as_str();
    let reference = ["rev", "tag", "branch"].into_iter().find_map(text);
    let reference = reference.map_or(String::new(), |reference| format!("@{reference}"));
    let folder = text("subdirectory").map_or(String::new(), |at| format!("#subdirectory={at}"));
    let url = text("git")?.trim_start_matches("git+");
    Some(format!("git+{url}{reference}{folder}"))
}

/// Files of this machine that `text` names by their URLs.
fn local_files(text: &str) -> impl Iterator<Item = &Path> {
    text.split(|c: char| c.is_whitespace() || "\"'`<>#".contains(c))
        .filter_map(|word| word.strip_prefix("file://"))
        .map(Path::new)
        .filter(|path| path.is_absolute() && path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        let mut rest = text;
        while let Some((_, link, after)) = next(rest) {
            found.push(link);
            rest = after;
        }
        found
    }

    #[test]
    fn links_are_found_wherever_requirements_have_them() {
        let text = "a @ git+https://h/a@v1#subdirectory=x ; python_version > '3'\n# b @ git+https://h/b\n\
                    -e git+ssh://git@h/c#egg=c\nd # git+https://h/d\n[\"e@git+file:///e\"]\nlegit+https://h/f git+x\n";
        assert_eq!(
            links(text),
            [
                "git+https://h/a@v1#subdirectory=x",
                "git+ssh://git@h/c#egg=c",
                "git+file:///e"
            ]
        );
    }

    #[test]
    fn sources_of_uv_are_links() {
        let source = |text: &str| source_link(&text.parse().expect("a table"));
        assert_eq!(
            source("git = \"https://h/a\"\nbranch = \"b\"\nsubdirectory = \"s\"").as_deref(),
            Some("git+https://h/a@b#subdirectory=s")
        );
        assert_eq!(source("path = \"a\""), None);
    }
}
