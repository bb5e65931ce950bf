//! The user that tasks run as, among those that a base has.

use imagespec_core::contract::{MTIME, USER, USER_HOME, USER_ID, USER_SHELL, WORKDIR, directory};
use imagespec_core::error::BuildError;
use imagespec_oci::layer::{LayerError, LayerWriter, Metadata};
use imagespec_oci::store::BlobWriter;

use crate::inspect::{Account, Facts, Part};

/// Ids of the image's user and its group in a file of users, if it is there.
pub(crate) fn ids(passwd: &str) -> Result<Option<(u32, u32)>, BuildError> {
    let Some((uid, gid)) = field(passwd, USER, 2).zip(field(passwd, USER, 3)) else {
        return Ok(None);
    };
    // Root may do what tasks must not, and the last id stands for none.
    let id = |text: &str| text.parse().ok().filter(|id| (1..u32::MAX).contains(id));
    let found = id(uid).zip(id(gid));
    found.map(Some).ok_or_else(|| {
        let message = format!(
            "the base image has a user `{USER}` of ids that nobody can have: `{uid}:{gid}`"
        );
        BuildError::input(message).field("base_image").hint(format!(
            "make it {USER_ID}:{USER_ID} in the base, or rename it there"
        ))
    })
}

/// A user of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its id, and that of its group.
    pub(crate) ids: (u32, u32),
    pub(crate) home: String,
}

impl Default for Found {
    /// Root.
    fn default() -> Self {
        Self {
            ids: (0, 0),
            home: "/root".to_owned(),
        }
    }
}

/// The user that a `USER` of a Dockerfile names: by name or id, with or without a group. One whose id is in no file has
/// the group 0 and no home, as in Docker.
pub(crate) fn find(facts: &Facts, named: &str) -> Option<Found> {
    let (user, group) = match named.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (named, None),
    };
    let passwd = text(facts, "etc/passwd");
    let name = |line: &str| line.split(':').next().map(str::to_owned);
    let mut lines = passwd.lines();
    let known = match user.parse::<u32>() {
        Ok(_) => lines.find(|line| line.split(':').nth(2) == Some(user)),
        Err(_) => lines.find(|line| name(line).as_deref() == Some(user)),
    };
    let field = |at: usize| known.and_then(|line| line.split(':').nth(at));
    let uid = field(2).unwrap_or(user).parse().ok()?;
    let gid = match group {
        None => field(3).unwrap_or("0").parse().ok()?,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => self::field(text(facts, "etc/group"), group, 2)?
                .parse()
                .ok()?,
        },
    };
    Some(Found {
        ids: (uid, gid),
        home: field(5).unwrap_or("/").to_owned(),
    })
}

/// Files to add, and ids of a user and its group.
type WithUser = (Option<Vec<Account>>, (u32, u32));

/// The files of users and groups of a base with the image's user among them, `None` where it is there already, with
/// its folders; and the ids that it has.
pub(crate) fn with_user(facts: &Facts) -> Result<WithUser, BuildError> {
    if let Some(ids) = ids(text(facts, "etc/passwd"))? {
        // Of which user the folders are is not among the facts; those of ours carry them along.
        let there = facts.parts.contains(&Part::Folders) && ids == (USER_ID, USER_ID);
        return Ok(((!there).then(Vec::new), ids));
    }
    let id = USER_ID;
    let shell = if facts.parts.contains(&Part::Bash) {
        USER_SHELL
    } else {
        "/bin/sh"
    };
    let changed = MTIME / 86_400;
    let lines = [
        (
            "etc/passwd",
            format!("{USER}:x:{id}:{id}::{USER_HOME}:{shell}"),
        ),
        ("etc/group", format!("{USER}:x:{id}:")),
        ("etc/shadow", format!("{USER}:!:{changed}:0:99999:7:::")),
        ("etc/gshadow", format!("{USER}:!::")),
    ];
    let mut files = Vec::new();
    for (path, line) in lines {
        let known = facts.accounts.iter().find(|account| account.path == path);
        let mut account = match (known, path) {
            (Some(account), _) => account.clone(),
            (None, "etc/passwd") => started(path, "root:x:0:0:root:/root:/bin/sh\n"),
            (None, "etc/group") => started(path, "root:x:0:\n"),
            // A base without passwords keeps none.
            (None, _) => continue,
        };
        if field(&account.text, USER, 0).is_some() {
            continue;
        }
        if !account.text.is_empty() && !account.text.ends_with('\n') {
            account.text.push('\n');
        }
        account.text.push_str(&line);
        account.text.push('\n');
        files.push(account);
    }
    Ok((Some(files), (id, id)))
}

fn started(path: &str, text: &str) -> Account {
    Account {
        path: path.to_owned(),
        text: text.to_owned(),
        mode: 0o644,
        uid: 0,
        gid: 0,
    }
}

/// A file of users or groups; empty where there is none.
fn text<'f>(facts: &'f Facts, path: &str) -> &'f str {
    let account = facts.accounts.iter().find(|account| account.path == path);
    account.map_or("", |account| account.text.as_str())
}

/// A field of the line of a name.
fn field<'a>(text: &'a str, name: &str, at: usize) -> Option<&'a str> {
    let mut lines = text.lines().map(|line| line.split(':'));
    let mut line = lines.find(|line| line.clone().next() == Some(name))?;
    line.nth(at)
}

/// Writes the files, and the folders of the image's user.
pub(crate) fn write(
    files: &[Account],
    layer: &mut LayerWriter<BlobWriter>,
) -> Result<(), LayerError> {
    for account in files {
        let metadata = Metadata {
            gid: account.gid,
            ..Metadata::new(account.mode, account.uid)
        };
        let mut text = account.text.as_bytes();
        let size = text.len() as u64;
        layer.file(account.path.as_bytes(), &metadata, size, &mut text)?;
    }
    for folder in [WORKDIR, USER_HOME] {
        let path = folder.trim_start_matches('/').as_bytes();
        let (mode, uid, gid) = directory(path);
        let metadata = Metadata {
            gid,
            ..Metadata::new(mode, uid)
        };
        layer.directory(path, &metadata)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(accounts: &[(&str, &str)], parts: &[Part]) -> Facts {
        let account = |(path, text): &(&str, &str)| Account {
            mode: 0o640,
            gid: 42,
            ..started(path, text)
        };
        Facts {
            distribution: None,
            suite: None,
            libc: None,
            accounts: accounts.iter().map(account).collect(),
            python: None,
            conda: None,
            parts: parts.iter().copied().collect(),
        }
    }

    fn added(accounts: &[(&str, &str)], parts: &[Part]) -> Option<Vec<(String, String)>> {
        let (files, ids) = with_user(&facts(accounts, parts)).expect("a user");
        assert_eq!(ids, (1000, 1000));
        let files = files?;
        let pair = |file: Account| (file.path, file.text);
        Some(files.into_iter().map(pair).collect())
    }

    #[test]
    fn the_user_is_added_to_whoever_is_there() {
        let user = "flytekit:x:1000:1000::/home/flytekit:/bin/sh\n";
        let expected = [
            (
                "etc/passwd",
                format!("root:x:0:0:root:/root:/bin/sh\n{user}"),
            ),
            ("etc/group", "root:x:0:\nflytekit:x:1000:\n".to_owned()),
        ];
        let expected = expected.map(|(path, text)| (path.to_owned(), text));
        assert_eq!(added(&[], &[]), Some(expected.into()));

        let there = [
            (
                "etc/passwd",
                "root:x:0:0::/:/bin/sh\nubuntu:x:1000:1000::/home/ubuntu:/bin/bash",
            ),
            ("etc/group", "flytekit:x:5:\n"),
            ("etc/shadow", "root:*:1:::::\n"),
        ];
        let files = with_user(&facts(&there, &[Part::Bash]))
            .expect("a user")
            .0
            .expect("files");
        let paths: Vec<_> = files
            .iter()
            .map(|file| (file.path.as_str(), file.mode, file.gid))
            .collect();
        assert_eq!(
            paths,
            [("etc/passwd", 0o640, 42), ("etc/shadow", 0o640, 42)]
        );
        let line = "/home/ubuntu:/bin/bash\nflytekit:x:1000:1000::/home/flytekit:/bin/bash\n";
        assert!(files[0].text.ends_with(line), "{}", files[0].text);
        assert_eq!(
            files[1].text,
            "root:*:1:::::\nflytekit:!:3652:0:99999:7:::\n"
        );
    }

    #[test]
    fn a_user_who_is_there_is_left_with_its_ids() {
        let there = [(
            "etc/passwd",
            "flytekit:x:1000:1000::/home/flytekit:/bin/bash\n",
        )];
        assert_eq!(added(&there, &[Part::Folders]), None);
        assert_eq!(added(&there, &[]), Some(Vec::new()));
        let line = "flytekit:x:1001:1002::/home/flytekit:/bin/bash\n";
        let (files, ids) = with_user(&facts(&[("etc/passwd", line)], &[])).expect("a user");
        assert_eq!((files, ids), (Some(Vec::new()), (1001, 1002)));
        for ids in ["0:0", "1001:0", "1001:4294967295", ":", "x:1"] {
            let line = format!("flytekit:x:{ids}::/home/flytekit:/bin/bash\n");
            let error = with_user(&facts(&[("etc/passwd", &line)], &[])).expect_err("other ids");
            assert_eq!(error.field.as_deref(), Some("base_image"));
        }
    }
}
