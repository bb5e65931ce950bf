//! Options of the builder: where the service is, and who asks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use imagespec_core::error::BuildError;
use imagespec_core::host::{Host, RegistrySettings};
use serde_json::{Map, Value};
use url::{Host as Named, Url};

use crate::backend::ENTRY;

/// The variable with the service's address, where no option has it.
pub(crate) const ENDPOINT: &str = "IMAGESPEC_ENDPOINT";
/// The variable with the token, where no option names another.
pub(crate) const TOKEN: &str = "IMAGESPEC_TOKEN";
/// How long a command may take to say the token.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a person may take to unlock the keyring.
const UNLOCKING: Duration = Duration::from_mins(2);

/// The names of the options, each with what it means.
pub(crate) const OPTIONS: &[(&str, &str)] = &[
    (
        "endpoint",
        "URL of the service; by default that of the variable `IMAGESPEC_ENDPOINT`",
    ),
    (
        "token_variable",
        "the variable with the token; by default `IMAGESPEC_TOKEN`",
    ),
    ("token_file", "a file with the token, from the root"),
    (
        "token_command",
        "a command that prints the token, and its arguments: `[\"pass\", \"show\", \"imagespec\"]`",
    ),
    (
        "token_keyring",
        "a user name under which the keyring of the system has the token, for the service named by the endpoint's URL",
    ),
    (
        "project",
        "the project, for a token that is for all; by default `default`",
    ),
    (
        "ca",
        "a PEM file with the authorities that sign the service's certificate, from the root; the system's count, too",
    ),
    (
        "insecure",
        "whether the service may speak plain HTTP elsewhere than on this machine",
    ),
    (
        "secrets",
        "secrets that the service has for the project, by name, and where the installation of Python packages finds each: `{ netrc = \"/root/.netrc\" }`",
    ),
    (
        "on_interrupt",
        "what becomes of the build when this command is interrupted: `cancel`, `detach`, or `ask` (the default; where nobody can be asked, it is cancelled)",
    ),
];

/// What the options say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    endpoint: Option<Url>,
    token: Source,
    pub(crate) project: Option<String>,
    ca: Option<PathBuf>,
    /// By the name that the service knows.
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) on_interrupt: OnInterrupt,
}

/// What becomes of a build whose command is interrupted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum OnInterrupt {
    /// What the person says; where nobody can be asked, it is cancelled.
    #[default]
    Ask,
    Cancel,
    Detach,
}

/// Where the token is.
#[derive(Debug, Clone)]
enum Source {
    Variable(String),
    File(PathBuf),
    Command(Vec<String>),
    /// A user name in the keyring of the system.
    Keyring(String),
}

impl Default for Source {
    fn default() -> Self {
        Self::Variable(TOKEN.to_owned())
    }
}

impl Options {
    pub(crate) fn read(host: &Host, options: &Map<String, Value>) -> Result<Self, BuildError> {
        let mut read = Self::default();
        let mut insecure = false;
        let variable = host
            .variable(ENDPOINT)
            .map(|url| Value::String(url.to_owned()));
        if let Some(url) = variable {
            read.endpoint = Some(endpoint(&url)?);
        }
        for (name, value) in options {
            match name.as_str() {
                "endpoint" => read.endpoint = Some(endpoint(value)?),
                "token_variable" => read.token = Source::Variable(text(name, value)?),
                "token_file" => read.token = Source::File(file(name, value)?),
                "token_keyring" => read.token = Source::Keyring(text(name, value)?),
                "token_command" => read.token = Source::Command(command(name, value)?),
                "project" => read.project = Some(text(name, value)?),
                "ca" => read.ca = Some(file(name, value)?),
                "secrets" => read.secrets = secrets(name, value)?,
                "insecure" => {
                    insecure = match value {
                        Value::Bool(insecure) => *insecure,
                        Value::String(text) if text == "true" => true,
                        Value::String(text) if text == "false" => false,
                        _ => return Err(ENTRY.wrong_option(name, "true or false", value)),
                    }
                }
                "on_interrupt" => {
                    read.on_interrupt = match value.as_str() {
                        Some("ask") => OnInterrupt::Ask,
                        Some("cancel") => OnInterrupt::Cancel,
                        Some("detach") => OnInterrupt::Detach,
                        _ => {
                            let expected = "`ask`, `cancel` or `detach`";
                            return Err(ENTRY.wrong_option(name, expected, value));
                        }
                    }
                }
                _ => return Err(ENTRY.unknown_option(name)),
            }
        }
        match &read.endpoint {
            Some(url) if url.scheme() == "http" && !insecure && !is_here(url) => {
                let message =
                    format!("the build service would get the token in plain HTTP: `{url}`");
                Err(BuildError::input(message)
                    .field("builder_options")
                    .hint("name an `endpoint` with `https`, or say `insecure = true`"))
            }
            _ => Ok(read),
        }
    }

    /// Where the service is.
    pub(crate) fn endpoint(&self) -> Result<&Url, BuildError> {
        self.endpoint.as_ref().ok_or_else(|| {
            BuildError::unavailable("no build service is named")
                .hint(format!(
                    "set `endpoint` in `[deployments.NAME.builders.union]` of imagespec.toml, or the variable `{ENDPOINT}`"
                ))
                .hint("`imagespec serve` runs a service; without one, `--builder native` builds on this machine")
        })
    }

    /// How the service is spoken to.
    pub(crate) fn settings(&self) -> RegistrySettings {
        RegistrySettings {
            ca: self.ca.clone(),
            ..RegistrySettings::default()
        }
    }

    /// The token.
    pub(crate) async fn token(&self, host: &Host) -> Result<String, BuildError> {
        let absent = |what: String| {
            let hint = "whoever runs the service makes tokens; options `token_variable`, `token_file`, `token_keyring` and `token_command` say where yours is";
            Err(BuildError::unavailable(what).hint(hint))
        };
        let token = match &self.token {
            Source::Variable(name) => match host.variable(name) {
                Some(token) => token.to_owned(),
                None => {
                    return absent(format!(
                        "there is no token for the build service: the variable `{name}` is not set"
                    ));
                }
            },
            Source::File(path) => fs_err::read_to_string(path).map_err(|error| {
                BuildError::unavailable("cannot read the token for the build service")
                    .caused_by(&error)
            })?,
            Source::Command(command) => said(host, command).await?,
            Source::Keyring(user) => kept(self.endpoint()?.as_str(), user).await?,
        };
        let token = token.trim();
        if token.is_empty() || token.contains(char::is_whitespace) {
            return absent(
                "the token for the build service is empty, or more than one word".to_owned(),
            );
        }
        Ok(token.to_owned())
    }
}

/// What the keyring of the system keeps for a service, by the URL of its endpoint, and a user name.
async fn kept(endpoint: &str, user: &str) -> Result<String, BuildError> {
    let service = endpoint.trim_end_matches('/').to_owned();
    let told = format!(
        "cannot take the token for the build service from the keyring: service `{service}`, user `{user}`"
    );
    let user = user.to_owned();
    // It may ask the person to unlock it, on a thread that may block.
    let asked = tokio::task::spawn_blocking(move || {
        // Where no keyring answers, the library's own error of an entry does not say so.
        if let Err(error) = keyring::Entry::store_status() {
            return Err(format!("no keyring answers here: {error}"));
        }
        let kept = keyring::Entry::new(&service, &user).and_then(|entry| entry.get_password());
        kept.map_err(|error| error.to_string())
    });
    let problem = match tokio::time::timeout(UNLOCKING, asked).await {
        Ok(Ok(Ok(token))) => return Ok(token),
        Ok(Ok(Err(problem))) => problem,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "nobody unlocked it in time".to_owned(),
    };
    Err(BuildError::unavailable(told)
        .caused_by(&std::io::Error::other(problem))
        .hint("keep it there first, as with `secret-tool store --label imagespec service SERVICE username USER`"))
}

/// What a command prints.
async fn said(host: &Host, command: &[String]) -> Result<String, BuildError> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| BuildError::input("`token_command` is empty"))?;
    let failed = || BuildError::unavailable(format!("`token_command` fails: `{program}`"));
    let asked = tokio::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&host.variables)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, asked)
        .await
        .map_err(|error| failed().caused_by(&error))?
        .map_err(|error| failed().caused_by(&error))?;
    if !output.status.success() {
        let status = std::io::Error::other(output.status.to_string());
        return Err(failed().caused_by(&status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn endpoint(value: &Value) -> Result<Url, BuildError> {
    let wrong = || ENTRY.wrong_option("endpoint", "a URL such as `https://builds.example`", value);
    let mut url: Url = value
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(wrong)?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !plain {
        return Err(wrong());
    }
    // Paths are joined below it.
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Named::Domain(name)) => name == "localhost",
        Some(Named::Ipv4(address)) => address.is_loopback(),
        Some(Named::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn text(name: &str, value: &Value) -> Result<String, BuildError> {
    match value.as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(ENTRY.wrong_option(name, "a text", value)),
    }
}

fn file(name: &str, value: &Value) -> Result<PathBuf, BuildError> {
    let path = value.as_str().map(PathBuf::from);
    path.filter(|path| path.is_absolute())
        .ok_or_else(|| ENTRY.wrong_option(name, "the path of a file, from the root", value))
}

fn secrets(name: &str, value: &Value) -> Result<BTreeMap<String, String>, BuildError> {
    let parsed = value
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok());
    let table = parsed.as_ref().unwrap_or(value).as_object();
    let secret = |(name, target): (&String, &Value)| {
        let target = target.as_str().filter(|target| target.starts_with('/'))?;
        Some((name.clone(), target.to_owned()))
    };
    let secrets = table.and_then(|table| table.iter().map(secret).collect());
    let expected = "a table of names and absolute paths, as `{ netrc = \"/root/.netrc\" }`";
    secrets.ok_or_else(|| ENTRY.wrong_option(name, expected, value))
}

fn command(name: &str, value: &Value) -> Result<Vec<String>, BuildError> {
    let words = match value {
        Value::Array(words) => words
            .iter()
            .map(|word| word.as_str().map(str::to_owned))
            .collect(),
        Value::String(text) => Some(text.split_whitespace().map(str::to_owned).collect()),
        _ => None,
    };
    words
        .filter(|words: &Vec<String>| !words.is_empty())
        .ok_or_else(|| ENTRY.wrong_option(name, "a command and its arguments", value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: &Value) -> Result<Options, BuildError> {
        let options = options.as_object().cloned().unwrap_or_default();
        Options::read(&Host::default(), &options)
    }

    #[test]
    fn a_token_goes_over_tls_or_stays_on_this_machine() {
        for (options, fine) in [
            (json!({"endpoint": "https://builds.example"}), true),
            (json!({"endpoint": "http://localhost:8484"}), true),
            (json!({"endpoint": "http://127.0.0.1:8484/below"}), true),
            (json!({"endpoint": "http://[::1]:8484"}), true),
            (json!({"endpoint": "http://builds.example"}), false),
            (
                json!({"endpoint": "http://builds.example", "insecure": true}),
                true,
            ),
            (json!({"endpoint": "ftp://builds.example"}), false),
            (
                json!({"endpoint": "https://me:secret@builds.example"}),
                false,
            ),
            (json!({"endpoint": "builds.example"}), false),
        ] {
            assert_eq!(read(&options).is_ok(), fine, "{options}");
        }
    }

    #[test]
    fn a_service_that_is_not_named_says_how_it_is() {
        let options = read(&json!({})).expect("options");
        let error = options.endpoint().expect_err("no endpoint");
        assert!(error.hints[0].contains("builders.union"), "{error:?}");
    }

    #[tokio::test]
    async fn a_token_comes_from_one_place() {
        let mut host = Host::default();
        host.variables
            .insert("OTHER".to_owned(), " abc\n".to_owned());
        host.variables
            .insert("PATH".to_owned(), "/usr/bin:/bin".to_owned());
        for (options, expected) in [
            (json!({"token_variable": "OTHER"}), Some("abc")),
            (json!({"token_variable": "NONE"}), None),
            (json!({"token_command": ["echo", "def"]}), Some("def")),
            (json!({"token_command": "echo two words"}), None),
            (json!({"token_command": "false"}), None),
            (json!({"token_file": "/nowhere/token"}), None),
        ] {
            let token = read(&options).expect("options").token(&host).await.ok();
            assert_eq!(token.as_deref(), expected, "{options}");
        }
    }
}
