//! What a lock may name that was made where code of packages ran: nothing of this machine that the person does not
//! name.

use std::path::{Component, Path, PathBuf};

use imagespec_core::error::BuildError;
use url::Url;

use super::{Lock, Origin};
use crate::git::is_open;
use crate::index::Settings;

/// Refuses files of this machine other than `declared` and those of its own indexes, and repositories that are not
/// open to everyone.
pub(super) fn confine(
    lock: &Lock,
    settings: &Settings,
    declared: &[PathBuf],
) -> Result<(), BuildError> {
    let folders: Vec<_> = folders(settings).collect();
    let refuse = |location: &str| {
        let message = format!("a package may not name what is on this machine: `{location}`");
        let error = BuildError::input(message).field("requirements");
        Err(error.hint("name it in the declaration"))
    };
    let files = lock
        .sources
        .iter()
        .filter_map(|source| match &source.origin {
            Origin::Archive(file) => Some(file),
            Origin::Git { .. } => None,
        });
    for file in files.chain(&lock.wheels) {
        let Some(path) = local(&file.location) else {
            continue;
        };
        let plain =
            path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
        let known =
            declared.contains(&path) || folders.iter().any(|folder| path.starts_with(folder));
        if !plain || !known {
            return refuse(&file.location);
        }
    }
    for source in &lock.sources {
        if let Origin::Git {
            url,
            commit,
            declared: false,
        } = &source.origin
            && !is_open(url, commit)
        {
            return refuse(url);
        }
    }
    Ok(())
}

/// The file of this machine that a location means; `None` for a URL of a server.
fn local(location: &str) -> Option<PathBuf> {
    match Url::parse(location) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => None,
        Ok(url) => Some(url.to_file_path().unwrap_or_default()),
        Err(_) => Some(PathBuf::from(location)),
    }
}

/// Folders of this machine that are indexes.
fn folders(settings: &Settings) -> impl Iterator<Item = &Path> {
    let named = settings.env.get("UV_FIND_LINKS").map(String::as_str);
    let options = settings.options.iter();
    let options = options.filter_map(|option| option.strip_prefix("--find-links="));
    named
        .into_iter()
        .chain(options)
        .flat_map(|words| words.split([' ', ',']))
        .map(|word| Path::new(word.strip_prefix("file://").unwrap_or(word)))
        .filter(|folder| folder.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{LockedSource, LockedWheel};
    use imagespec_core::digest::Digest;
    use imagespec_core::host::Host;
    use imagespec_core::login::IndexLogins;
    use imagespec_core::plan::PackageIndex;

    fn archive(location: &str) -> Origin {
        Origin::Archive(LockedWheel {
            name: "a".to_owned(),
            version: "1".to_owned(),
            filename: "a-1.tar.gz".to_owned(),
            location: location.to_owned(),
            digest: Digest::of("a"),
            size: None,
        })
    }

    fn git(url: &str, commit: &str, declared: bool) -> Origin {
        Origin::Git {
            url: url.to_owned(),
            commit: commit.to_owned(),
            declared,
        }
    }

    #[test]
    fn packages_name_nothing_of_this_machine() {
        let index = PackageIndex {
            extra_args: vec!["--find-links=/links".to_owned()],
            ..PackageIndex::default()
        };
        let variables = [("PIP_CONFIG_FILE".to_owned(), "/dev/null".to_owned())];
        let host = Host {
            variables: variables.into(),
            ..Host::default()
        };
        let settings = Settings::of(&host, &index, &IndexLogins::default()).expect("settings");
        let confined = |origin| {
            let source = LockedSource {
                name: "a".to_owned(),
                version: None,
                origin,
                subdirectory: None,
            };
            let lock = Lock {
                sources: vec![source],
                ..Lock::default()
            };
            confine(&lock, &settings, &[PathBuf::from("/mine/a-1.tar.gz")]).is_ok()
        };
        let commit = "a".repeat(40);
        for origin in [
            archive("https://h.example/a-1.tar.gz"),
            archive("file:///links/a-1.tar.gz"),
            archive("/mine/a-1.tar.gz"),
            git("ssh://git@h.example/a", &commit, true),
            git("https://h.example/a", &commit, false),
        ] {
            assert!(confined(origin.clone()), "{origin:?}");
        }
        for origin in [
            archive("file:///mine/b-1.tar.gz"),
            archive("/links/../mine/b-1.tar.gz"),
            archive("links/a-1.tar.gz"),
            archive("ftp://h.example/a-1.tar.gz"),
            git("ssh://git@h.example/a", &commit, false),
            git("file:///mine", &commit, false),
            git("https://h.example/a", "main", false),
        ] {
            assert!(!confined(origin.clone()), "{origin:?}");
        }
    }
}
