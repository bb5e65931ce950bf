//! Repositories that requirements name, fetched with the machine's own git.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use imagespec_core::digest::Framed;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::login::IndexLogins;
use tokio::process::Command;
use url::Url;

use crate::index::{Credentials, percent_decoded, redacted};

/// How repositories are reached; `ssh` with the agent that the machine runs.
const SCHEMES: [&str; 5] = ["https", "http", "ssh", "git", "file"];
/// Variables of the machine that git is to see as they are.
const PASSED: [&str; 25] = [
    "PATH",
    "HOME",
    "USER",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "SSH_AUTH_SOCK",
    "GIT_ASKPASS",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSH_VARIANT",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "ALL_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
/// Of these, those that tell git of no login.
const OPEN: [&str; 9] = [
    "PATH",
    "TMPDIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "https_proxy",
    "http_proxy",
    "no_proxy",
];
/// How a repository may be reached that only a package names.
const OPEN_SCHEMES: [&str; 3] = ["https", "http", "git"];
/// How many of git's last lines are repeated.
const LINES: usize = 10;
/// What git says where nobody is to blame for what is written.
const UNREACHABLE: [&str; 5] = [
    "Could not resolve host",
    "Could not connect",
    "Failed to connect",
    "Connection refused",
    "Connection timed out",
];

/// A link to a repository, as a requirement writes it: `git+https://host/path@reference#subdirectory=folder`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Where it is, in git's own words.
    pub url: String,
    /// A branch, a tag or a commit; `None` for what the repository has checked out.
    pub reference: Option<String>,
    /// The folder of the project in it.
    pub subdirectory: Option<String>,
}

/// The files of a commit, with those of its submodules and with its history, in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// Where they are. They are not to be changed.
    pub folder: PathBuf,
    /// Where they are from.
    pub url: String,
    /// The whole id of the commit.
    pub commit: String,
}

impl Repository {
    /// Reads a link that begins with `git+`.
    pub fn parse(link: &str) -> Result<Self, BuildError> {
        let wrong = |problem: &str| BuildError::input(format!("{problem}: `{}`", redacted(link)));
        let plain = link.strip_prefix("git+").unwrap_or(link);
        let mut url = Url::parse(plain).map_err(|_| wrong("expected the URL of a repository"))?;
        if !SCHEMES.contains(&url.scheme()) {
            return Err(wrong("a repository is reached in a way that is not known")
                .hint(format!("known ways: {}", SCHEMES.join(", "))));
        }
        let fragment = percent_decoded(url.fragment().unwrap_or_default());
        let subdirectory = fragment
            .split('&')
            .find_map(|part| part.strip_prefix("subdirectory="))
            .map(|folder| folder.trim_matches('/').to_owned())
            .filter(|folder| !folder.is_empty());
        if subdirectory
            .as_deref()
            .is_some_and(|folder| !inside(folder))
        {
            return Err(wrong("the folder of a project is outside its repository"));
        }
        url.set_fragment(None);
        let path = url.path().to_owned();
        let (path, reference) = match path.rsplit_once('@') {
            Some((path, reference)) => (path.to_owned(), Some(percent_decoded(reference))),
            None => (path, None),
        };
        if reference.as_deref().is_some_and(|name| {
            name.is_empty() || name.starts_with('-') || name.contains(char::is_control)
        }) {
            return Err(wrong("expected a branch, a tag or a commit after `@`"));
        }
        url.set_path(&path);
        Ok(Self {
            url: url.into(),
            reference,
            subdirectory,
        })
    }

    /// Whether it names a commit by its whole id.
    pub fn is_pinned(&self) -> bool {
        self.reference.as_deref().is_some_and(is_commit)
    }
}

/// Whether a path stays in its folder.
pub(crate) fn inside(path: &str) -> bool {
    !path.starts_with('/')
        && !path.contains(['\0', '\\'])
        && !path.split('/').any(|part| part == "..")
}

/// Whether a repository that only a package names may be fetched: by a whole commit id, and in a way that takes no
/// login.
pub(crate) fn is_open(url: &str, commit: &str) -> bool {
    let url = Url::parse(url);
    url.is_ok_and(|url| OPEN_SCHEMES.contains(&url.scheme())) && is_commit(commit)
}

fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64) && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Checkout {
    /// A name that no other checkout has.
    pub fn id(&self) -> String {
        format!("{}-{}", &self.commit[..12], &key(&self.url, true)[..16])
    }
}

fn key(url: &str, declared: bool) -> String {
    let mut key = Framed::new("imagespec repository");
    key.text(url).number(u64::from(declared));
    key.finish().hex()
}

/// Checks a branch, a tag or a commit of a repository out. A commit that is in the cache is not asked for again.
/// Dropping the future kills git.
///
/// A repository that is not `declared`, as only a package names it, gets no login and no agent: what a package says
/// is no reason to use them.
pub async fn checkout(
    host: &Host,
    logins: &IndexLogins,
    url: &str,
    reference: Option<&str>,
    declared: bool,
) -> Result<Checkout, BuildError> {
    if !declared && !is_open(url, reference.unwrap_or_default()) {
        let message = format!(
            "a package may not name such a repository: `{}`",
            redacted(url)
        );
        return Err(BuildError::input(message));
    }
    let root = host.cache_dir.join("git").join(key(url, declared));
    let made = |commit: &str| Checkout {
        folder: root.join(commit),
        url: url.to_owned(),
        commit: commit.to_owned(),
    };
    if let Some(commit) = reference.filter(|reference| is_commit(reference)) {
        let known = made(&commit.to_ascii_lowercase());
        if known.folder.is_dir() {
            return Ok(known);
        }
    }
    let failed = |error: std::io::Error| {
        BuildError::failed(format!("cannot keep the repository `{}`", redacted(url)))
            .caused_by(&error)
    };
    fs_err::create_dir_all(&root).map_err(failed)?;
    let work = tempfile::Builder::new()
        .prefix(".clone-")
        .tempdir_in(&root)
        .map_err(failed)?;
    let git = Git {
        folder: work.path(),
        url,
        env: if declared {
            environment(host, logins, url)
        } else {
            open_environment(host)
        },
    };
    let filter = "--filter=blob:none";
    git.run(&["clone", "--quiet", "--no-checkout", filter, "--", url, "."])
        .await?;
    let commit = git.commit(reference).await?;
    git.run(&["checkout", "--quiet", "--detach", &commit])
        .await?;
    git.run(&["submodule", "update", "--quiet", "--init", "--recursive"])
        .await?;
    let made = made(&commit);
    match fs_err::rename(work.path(), &made.folder) {
        // Somebody else was faster.
        Err(_) if made.folder.is_dir() => {}
        renamed => renamed.map_err(failed)?,
    }
    Ok(made)
}

/// git in a folder, with what it is to know of the machine.
struct Git<'a> {
    folder: &'a Path,
    url: &'a str,
    env: BTreeMap<String, String>,
}

impl Git<'_> {
    /// The commit that a reference means: a branch before a tag, as pip has it.
    async fn commit(&self, reference: Option<&str>) -> Result<String, BuildError> {
        let Some(reference) = reference else {
            return self.parse("refs/remotes/origin/HEAD").await;
        };
        for candidate in [
            &format!("refs/remotes/origin/{reference}"),
            &format!("refs/tags/{reference}"),
            reference,
        ] {
            if let Ok(commit) = self.parse(candidate).await {
                return Ok(commit);
            }
        }
        // What no branch leads to, such as `refs/pull/1/head`.
        self.run(&["fetch", "--quiet", "origin", "--", reference])
            .await?;
        self.parse("FETCH_HEAD").await
    }

    async fn parse(&self, reference: &str) -> Result<String, BuildError> {
        let wanted = format!("{reference}^{{commit}}");
        let said = self
            .run(&[
                "rev-parse",
                "--verify",
                "--quiet",
                "--end-of-options",
                &wanted,
            ])
            .await?;
        let commit = said.lines().last().unwrap_or_default().trim();
        if is_commit(commit) {
            Ok(commit.to_owned())
        } else {
            Err(self.failed("what it answers is no commit"))
        }
    }

    async fn run(&self, arguments: &[&str]) -> Result<String, BuildError> {
        let mut command = Command::new("git");
        command
            .args([
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "advice.detachedHead=false",
            ])
            .args(arguments)
            .current_dir(self.folder)
            .env_clear()
            .envs(&self.env)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.map_err(|error| {
            let hint = "install git: it fetches the repositories that requirements name";
            BuildError::unavailable("cannot run git")
                .hint(hint)
                .caused_by(&error)
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(self.failed(&String::from_utf8_lossy(&output.stderr)))
    }

    fn failed(&self, said: &str) -> BuildError {
        let lines: Vec<_> = said.trim().lines().collect();
        let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
        let message = format!("cannot fetch the repository `{}`", redacted(self.url));
        let error = if UNREACHABLE.iter().any(|mark| said.contains(mark)) {
            BuildError::unavailable(message)
        } else {
            BuildError::input(message)
        };
        error.caused_by(&std::io::Error::other(redacted(&last)))
    }
}

/// git asks nobody, and learns a login from its environment, which no other user can read.
fn environment(host: &Host, logins: &IndexLogins, url: &str) -> BTreeMap<String, String> {
    let passed = host
        .variables
        .iter()
        .filter(|(name, _)| PASSED.contains(&name.as_str()));
    let mut env: BTreeMap<_, _> = passed
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut set = |name: &str, value: &str| env.insert(name.to_owned(), value.to_owned());
    set("GIT_TERMINAL_PROMPT", "0");
    set("LC_ALL", "C");
    if !host.variables.contains_key("GIT_SSH") && !host.variables.contains_key("GIT_SSH_COMMAND") {
        set("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
    }
    let over_http = Url::parse(url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"));
    let credentials = Credentials::of(host, logins);
    if let Some(url) = over_http
        && let Some((user, password)) = credentials.get(&url)
    {
        let login = format!("{user}:{}", password.as_deref().unwrap_or_default());
        let login = base64::engine::general_purpose::STANDARD.encode(login);
        let server = &url[..url::Position::BeforePath];
        set("GIT_CONFIG_COUNT", "1");
        set("GIT_CONFIG_KEY_0", &format!("http.{server}/.extraHeader"));
        set(
            "GIT_CONFIG_VALUE_0",
            &format!("Authorization: Basic {login}"),
        );
    }
    env
}

/// The environment of git where it is to have no login.
fn open_environment(host: &Host) -> BTreeMap<String, String> {
    let passed = host
        .variables
        .iter()
        .filter(|(name, _)| OPEN.contains(&name.as_str()));
    let own = [
        ("GIT_TERMINAL_PROMPT", "0"),
        ("LC_ALL", "C"),
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_ALLOW_PROTOCOL", "https:http:git"),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    passed
        .map(|(name, value)| (name.clone(), value.clone()))
        .chain(own)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_repositories_are_read_as_pip_reads_them() {
        let read = |link: &str| {
            let read = Repository::parse(link).expect(link);
            (read.url, read.reference, read.subdirectory)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            read("git+https://h.example/o/r.git@feature/x#egg=r&subdirectory=a/b"),
            (
                "https://h.example/o/r.git".to_owned(),
                some("feature/x"),
                some("a/b")
            )
        );
        assert_eq!(
            read("git+ssh://git@h.example/o/r"),
            ("ssh://git@h.example/o/r".to_owned(), None, None)
        );
        for wrong in [
            "git+ext://sh -c x",
            "git+https://h.example/r@--upload-pack=x",
            "git+https://h.example/r#subdirectory=../x",
            "git+https://h.example/r@",
            "git+no",
        ] {
            Repository::parse(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn a_login_is_said_in_the_environment_and_to_its_server_only() {
        let mut logins = IndexLogins::default();
        logins.strip("git+https://me:word@h.example/o/r@main");
        let host = Host {
            variables: [
                ("NETRC", "/nowhere"),
                ("SECRET", "x"),
                ("SSH_AUTH_SOCK", "/a"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            ..Host::default()
        };
        let env = environment(&host, &logins, "https://h.example/o/r");
        assert_eq!(
            env["GIT_CONFIG_KEY_0"],
            "http.https://h.example/.extraHeader"
        );
        assert_eq!(
            env["GIT_CONFIG_VALUE_0"],
            "Authorization: Basic bWU6d29yZA=="
        );
        assert_eq!(env["SSH_AUTH_SOCK"], "/a");
        assert!(!env.contains_key("SECRET"));
        assert!(!open_environment(&host).contains_key("SSH_AUTH_SOCK"));
        let other = environment(&host, &logins, "https://other.example/o/r");
        assert!(!other.contains_key("GIT_CONFIG_COUNT"));
    }
}
