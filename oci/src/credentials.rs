//! Credentials of registries, from where Docker and Podman keep them.
//!
//! In this order: the JSON in `DOCKER_AUTH_CONFIG`, the file `REGISTRY_AUTH_FILE`, and `config.json` in
//! `DOCKER_CONFIG` or `~/.docker`. Secrets appear in no error and no `Debug` output.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use imagespec_core::host::Host;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::reference::DEFAULT_REGISTRY;

/// What Docker calls the registry `docker.io` in its configuration.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
const HELPER_PATIENCE: Duration = Duration::from_mins(1);
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A secret text that shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, to be sent to the registry and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How to prove to a registry who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth 2 refresh token for the registry's token server.
    IdentityToken(Secret),
    /// A bearer token for the registry itself.
    RegistryToken(Secret),
}

/// Why credentials cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("cannot read registry credentials")]
    Io(#[from] io::Error),
    /// A configuration is not what Docker writes. What it says is not repeated, it may be a secret.
    #[error("registry credentials are malformed at line {line}, column {column}: `{place}`")]
    Malformed {
        /// The file or the variable.
        place: String,
        /// Where in it, from 1.
        line: usize,
        /// Where in the line, from 1.
        column: usize,
    },
    /// An `auth` is not the Base64 of `user:password`.
    #[error("the `auth` of a registry is not the Base64 of `user:password`: `{0}`")]
    Auth(String),
    /// A credential helper's name is not a plain word.
    #[error("not the name of a credential helper: `{0}`")]
    HelperName(String),
    /// A credential helper failed.
    #[error("the credential helper {problem}: `docker-credential-{name}`")]
    Helper {
        /// Its name.
        name: String,
        /// What it did.
        problem: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Clone, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Finds the credentials of registries.
#[derive(Clone)]
pub struct Credentials {
    inline: Option<String>,
    files: Vec<PathBuf>,
    variables: BTreeMap<String, String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// The credentials of whoever uses this machine. Nothing is read yet.
    pub fn new(host: &Host) -> Self {
        let docker = match host.variable("DOCKER_CONFIG") {
            Some(folder) => Some(PathBuf::from(folder)),
            None => host.home.as_ref().map(|home| home.join(".docker")),
        };
        let explicit = host.variable("REGISTRY_AUTH_FILE").map(PathBuf::from);
        Self {
            inline: host.variable("DOCKER_AUTH_CONFIG").map(str::to_owned),
            files: explicit
                .into_iter()
                .chain(docker.map(|folder| folder.join("config.json")))
                .collect(),
            variables: host.variables.clone(),
        }
    }

    /// The credential for a repository of a registry, if there is one: the entry with the longest matching
    /// path wins, a credential helper over an entry of the same file.
    pub async fn find(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialError> {
        let found = self.find_with_origin(registry, repository).await?;
        Ok(found.map(|(credential, _)| credential))
    }

    /// As [`Credentials::find`], with who has it: a file, a variable, or a credential helper that one of them names.
    pub async fn find_with_origin(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<(Credential, String)>, CredentialError> {
        let from = |(credential, helper): (_, Option<String>), place: &str| {
            let origin = match helper {
                Some(helper) => format!("docker-credential-{helper}, named by {place}"),
                None => place.to_owned(),
            };
            (credential, origin)
        };
        if let Some(text) = &self.inline {
            let place = "DOCKER_AUTH_CONFIG";
            let config = parse(text.as_bytes(), place)?;
            if let Some(found) = self.find_in(&config, registry, repository).await? {
                return Ok(Some(from(found, place)));
            }
        }
        for file in &self.files {
            let Some(config) = read(file)? else { continue };
            if let Some(found) = self.find_in(&config, registry, repository).await? {
                return Ok(Some(from(found, &file.display().to_string())));
            }
        }
        Ok(None)
    }

    /// The credential, and the helper that has it, if one has.
    async fn find_in(
        &self,
        config: &Config,
        registry: &str,
        repository: &str,
    ) -> Result<Option<(Credential, Option<String>)>, CredentialError> {
        let helper = longest(&config.cred_helpers, registry, repository)
            .map(|(_, helper)| helper)
            .or(config.creds_store.as_ref())
            .filter(|helper| !helper.is_empty());
        if let Some(helper) = helper {
            let found = self.ask(helper, registry).await?;
            if let Some(found) = found {
                return Ok(Some((found, Some(helper.clone()))));
            }
        }
        let entry = longest(&config.auths, registry, repository);
        let found = entry
            .map(|(key, entry)| entry.credential(key))
            .transpose()?;
        Ok(found.flatten().map(|found| (found, None)))
    }

    /// Asks `docker-credential-NAME get`, by the protocol of docker-credential-helpers.
    async fn ask(&self, name: &str, registry: &str) -> Result<Option<Credential>, CredentialError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !name.bytes().all(word) {
            return Err(CredentialError::HelperName(name.to_owned()));
        }
        let failed = |problem: String| CredentialError::Helper {
            name: name.to_owned(),
            problem,
        };
        let server = match registry {
            DEFAULT_REGISTRY => DOCKER_HUB,
            registry => registry,
        };
        let answer = async {
            let mut child = Command::new(format!("docker-credential-{name}"))
                .arg("get")
                .env_clear()
                .envs(&self.variables)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // A helper may answer without reading.
                let _ = stdin.write_all(format!("{server}\n").as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(HELPER_PATIENCE, answer)
            .await
            .map_err(|_| failed("did not answer within a minute".to_owned()))?
            .map_err(|error| failed(format!("cannot be run ({})", error.kind())))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).to_lowercase();
            if said.contains("not found") {
                return Ok(None);
            }
            return Err(failed(format!("failed with {}", output.status)));
        }
        let answer: Answer = serde_json::from_slice(&output.stdout)
            .map_err(|_| failed("gave an answer that is not its protocol's".to_owned()))?;
        Ok(answer.credential())
    }
}

impl Answer {
    fn credential(self) -> Option<Credential> {
        match self.username.as_str() {
            _ if self.secret.is_empty() => None,
            "<token>" => Some(Credential::IdentityToken(Secret(self.secret))),
            _ => Some(Credential::Basic {
                username: self.username,
                password: Secret(self.secret),
            }),
        }
    }
}

impl Entry {
    fn credential(&self, key: &str) -> Result<Option<Credential>, CredentialError> {
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = some(&self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(Secret(token))));
        }
        if let Some(token) = some(&self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(Secret(token))));
        }
        if let Some(auth) = some(&self.auth) {
            let pair = BASE64
                .decode(auth.trim())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            let (username, password) = pair
                .as_deref()
                .and_then(|pair| pair.split_once(':'))
                .ok_or_else(|| CredentialError::Auth(key.to_owned()))?;
            return Ok(Some(Credential::Basic {
                username: username.to_owned(),
                password: Secret::new(password.trim_end_matches('\0')),
            }));
        }
        let pair = some(&self.username).zip(some(&self.password));
        Ok(pair.map(|(username, password)| Credential::Basic {
            username,
            password: Secret(password),
        }))
    }
}

fn read(path: &Path) -> Result<Option<Config>, CredentialError> {
    match fs_err::read(path) {
        Ok(bytes) => parse(&bytes, &path.display().to_string()).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn parse(bytes: &[u8], place: &str) -> Result<Config, CredentialError> {
    serde_json::from_slice(bytes).map_err(|error| CredentialError::Malformed {
        place: place.to_owned(),
        line: error.line(),
        column: error.column(),
    })
}

/// The entry whose key is the longest one that the repository is in.
fn longest<'a, T>(
    entries: &'a BTreeMap<String, T>,
    registry: &str,
    repository: &str,
) -> Option<(&'a str, &'a T)> {
    let name = format!("{registry}/{repository}");
    let covers = |key: &str| {
        name.strip_prefix(key)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    entries
        .iter()
        .map(|(key, entry)| (normal(key), key.as_str(), entry))
        .filter(|(normal, ..)| covers(normal))
        .max_by_key(|(normal, ..)| normal.len())
        .map(|(_, key, entry)| (key, entry))
}

/// A key as `registry[/path]`: Docker also writes URLs, with the version of an interface long gone.
fn normal(key: &str) -> String {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key)
        .trim_end_matches('/');
    let key = key
        .strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key);
    for hub in ["index.docker.io", "registry-1.docker.io"] {
        if let Some(path) = key.strip_prefix(hub) {
            return format!("{DEFAULT_REGISTRY}{path}");
        }
    }
    key.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(config: &str) -> Host {
        Host {
            variables: BTreeMap::from([("DOCKER_AUTH_CONFIG".to_owned(), config.to_owned())]),
            ..Host::default()
        }
    }

    async fn user(host: &Host, registry: &str, repository: &str) -> Option<String> {
        match Credentials::new(host)
            .find(registry, repository)
            .await
            .expect("an answer")?
        {
            Credential::Basic { username, .. } => Some(username),
            other => Some(format!("{other:?}")),
        }
    }

    fn auth(user: &str) -> String {
        format!(
            r#"{{"auth":"{}"}}"#,
            BASE64.encode(format!("{user}:se:cret"))
        )
    }

    #[tokio::test]
    async fn the_longest_path_wins() {
        let host = host(&format!(
            r#"{{"auths":{{"r.example":{},"https://r.example/team/":{},"r.example/team/app":{},
            "{DOCKER_HUB}":{}}}}}"#,
            auth("all"),
            auth("team"),
            auth("app"),
            auth("hub"),
        ));
        for (registry, repository, expected) in [
            ("r.example", "other", Some("all")),
            ("r.example", "teams/x", Some("all")),
            ("r.example", "team/x", Some("team")),
            ("r.example", "team/app", Some("app")),
            ("r.example", "team/app/x", Some("app")),
            ("r.example:5000", "team/app", None),
            ("docker.io", "library/python", Some("hub")),
        ] {
            let found = user(&host, registry, repository).await;
            assert_eq!(found.as_deref(), expected, "{registry}/{repository}");
        }
    }

    #[tokio::test]
    async fn files_come_after_the_variable_and_may_be_absent() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().to_owned();
        let mut host = host(&format!(r#"{{"auths":{{"a":{}}}}}"#, auth("variable")));
        host.home = Some(home.clone());
        assert_eq!(user(&host, "b", "x").await, None);
        fs_err::create_dir(home.join(".docker")).expect("a folder");
        let config = format!(r#"{{"auths":{{"a":{},"b":{}}}}}"#, auth("x"), auth("home"));
        fs_err::write(home.join(".docker/config.json"), config).expect("a file");
        assert_eq!(user(&host, "a", "x").await.as_deref(), Some("variable"));
        assert_eq!(user(&host, "b", "x").await.as_deref(), Some("home"));
        let podman = home.join("auth.json");
        fs_err::write(
            &podman,
            format!(r#"{{"auths":{{"b":{}}}}}"#, auth("podman")),
        )
        .expect("a file");
        host.variables.insert(
            "REGISTRY_AUTH_FILE".to_owned(),
            podman.display().to_string(),
        );
        assert_eq!(user(&host, "b", "x").await.as_deref(), Some("podman"));
    }

    #[tokio::test]
    async fn no_secret_is_shown() {
        let credentials = Credentials::new(&host(r#"{"auths":{"r":{"auth":{"hunter2":1}}}}"#));
        let error = credentials.find("r", "x").await.expect_err("malformed");
        assert!(!format!("{error:?} {error} {credentials:?}").contains("hunter2"));
        let credentials = Credentials::new(&host(r#"{"auths":{"r":{"auth":"aHVudGVyMg"}}}"#));
        let error = credentials.find("r", "x").await.expect_err("no colon");
        assert!(!format!("{error:?} {error}").contains("aHVudGVyMg"));
        let credentials = Credentials::new(&host(&format!(r#"{{"auths":{{"r":{}}}}}"#, auth("u"))));
        let found = credentials.find("r", "x").await.expect("an answer");
        assert!(!format!("{found:?}").contains("se:cret"));
        assert!(matches!(
            found,
            Some(Credential::Basic { password, .. }) if password.expose() == "se:cret"
        ));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn helpers_are_asked_on_the_hosts_path() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let helper = folder.path().join("docker-credential-test");
        let script = r#"#!/bin/sh
read server
case "$server" in
r.example) echo '{"ServerURL":"r.example","Username":"helped","Secret":"s"}';;
https://index.docker.io/v1/) echo '{"ServerURL":"","Username":"<token>","Secret":"s"}';;
broken) exit 3;;
*) echo 'credentials not found in native keychain'; exit 1;;
esac
"#;
        fs_err::write(folder.path().join("script"), script).expect("a script");
        fs_err::copy(folder.path().join("script"), &helper).expect("a helper");
        fs_err::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let mut host = host(&format!(
            r#"{{"credsStore":"test","credHelpers":{{"evil":"../x"}},"auths":{{"kept":{}}}}}"#,
            auth("file")
        ));
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        host.variables.insert("PATH".to_owned(), path);
        assert_eq!(
            user(&host, "r.example", "x").await.as_deref(),
            Some("helped")
        );
        assert_eq!(user(&host, "kept", "x").await.as_deref(), Some("file"));
        assert_eq!(user(&host, "other", "x").await, None);
        let token = user(&host, "docker.io", "library/x").await;
        assert_eq!(token.as_deref(), Some("IdentityToken(Secret(…))"));
        let credentials = Credentials::new(&host);
        let error = credentials.find("broken", "x").await.expect_err("exit 3");
        assert!(matches!(error, CredentialError::Helper { .. }), "{error}");
        let error = credentials.find("evil", "x").await.expect_err("a path");
        assert!(matches!(error, CredentialError::HelperName(_)), "{error}");
    }
}
