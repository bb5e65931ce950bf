//! Channels: what their names lead to, as Conda is configured on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use imagespec_core::host::Host;
use rattler_conda_types::ChannelConfig;
use serde::Deserialize;
use url::Url;

use crate::error::CondaError;

/// The channel that counts before all others, and the one whose packages include Python.
pub const CONDA_FORGE: &str = "conda-forge";
/// The largest configuration file, in bytes.
const CONFIG: u64 = 1 << 20;
/// What stands before a token in the path of a channel's URL.
const TOKEN: &str = "/t/";

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// As it was named.
    pub name: String,
    /// Where it is, without secrets, ending with a slash.
    pub url: Url,
}

/// What the names of channels lead to.
#[derive(Debug, Clone)]
pub struct Channels {
    config: ChannelConfig,
    /// Folders of channels that have others than the rest, by the channel's name.
    custom: BTreeMap<String, Url>,
    /// Names that stand for several channels.
    several: BTreeMap<String, Vec<String>>,
    /// How much it matters which channel comes first.
    pub priority: Priority,
    /// URLs without and with their secrets.
    secrets: Vec<(Url, Url)>,
    /// Whether channels may be folders of this machine.
    folders: bool,
}

/// How much it matters which channel comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// The first channel that has a package is the only one it is taken from.
    #[default]
    #[serde(alias = "true")]
    Strict,
    /// The first channel that has a package is preferred.
    Flexible,
    /// The newest package is preferred.
    #[serde(alias = "false")]
    Disabled,
}

/// What of a `.condarc` matters.
#[derive(Debug, Default, Deserialize)]
struct Config {
    channel_alias: Option<String>,
    #[serde(default)]
    custom_channels: BTreeMap<String, String>,
    #[serde(default)]
    custom_multichannels: BTreeMap<String, Vec<String>>,
    default_channels: Option<Vec<String>>,
    channel_priority: Option<PriorityText>,
}

/// `strict`, or `true` as it was written once.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PriorityText {
    Flag(bool),
    Named(Priority),
}

impl Channels {
    /// As the configuration files and variables of Conda say, those that count more last. Contacts nothing.
    pub fn of(host: &Host) -> Result<Self, CondaError> {
        let folder = host.home.clone().unwrap_or_else(|| "/".into());
        let mut channels = Self {
            config: ChannelConfig::default_with_root_dir(folder),
            custom: BTreeMap::new(),
            several: BTreeMap::new(),
            priority: Priority::default(),
            secrets: Vec::new(),
            folders: !host.strangers,
        };
        for file in files(host) {
            channels.configure(host, &file)?;
        }
        for name in ["CONDA_CHANNEL_ALIAS", "MAMBA_CHANNEL_ALIAS"] {
            if let Some(alias) = host.variable(name) {
                channels.alias(alias, name)?;
            }
        }
        Ok(channels)
    }

    fn configure(&mut self, host: &Host, file: &Path) -> Result<(), CondaError> {
        let wrong = |problem: String| CondaError::Config {
            file: file.display().to_string(),
            problem,
        };
        let size = fs_err::metadata(file).map_or(0, |found| found.len());
        if size > CONFIG {
            return Err(wrong(format!("it has more than {CONFIG} bytes")));
        }
        let text = fs_err::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        if text.trim().is_empty() {
            return Ok(());
        }
        let config: Option<Config> =
            serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let config = config.unwrap_or_default();
        let name = file.display().to_string();
        if let Some(alias) = config.channel_alias {
            self.alias(&host.expanded(&alias), &name)?;
        }
        for (channel, folder) in config.custom_channels {
            let folder = host.expanded(&folder);
            let folder = self
                .known(&folder)
                .ok_or_else(|| wrong(format!("`custom_channels` has no URL for `{channel}`")))?;
            self.custom.insert(channel, folder);
        }
        let expand = |channels: Vec<String>| -> Vec<String> {
            channels.iter().map(|text| host.expanded(text)).collect()
        };
        for (name, channels) in config.custom_multichannels {
            self.several.insert(name, expand(channels));
        }
        if let Some(channels) = config.default_channels {
            self.several.insert("defaults".to_owned(), expand(channels));
        }
        match config.channel_priority {
            Some(PriorityText::Named(priority)) => self.priority = priority,
            Some(PriorityText::Flag(true)) => self.priority = Priority::Flexible,
            Some(PriorityText::Flag(false)) => self.priority = Priority::Disabled,
            None => {}
        }
        Ok(())
    }

    fn alias(&mut self, alias: &str, file: &str) -> Result<(), CondaError> {
        let url = self.known(alias).ok_or_else(|| CondaError::Config {
            file: file.to_owned(),
            problem: "the channel alias is no URL".to_owned(),
        })?;
        self.config.channel_alias = url;
        Ok(())
    }

    /// The URL of a folder without its secrets, which are kept; `None` where it is none.
    fn known(&mut self, text: &str) -> Option<Url> {
        let text = if text.starts_with('/') {
            format!("file://{text}")
        } else if text.contains("://") {
            text.to_owned()
        } else {
            return None;
        };
        let mut url = Url::parse(&text).ok()?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let shown = without_secrets(&url);
        if shown != url {
            self.secrets.push((shown.clone(), url));
        }
        Some(shown)
    }

    /// The channels that a name, a URL or the path of a folder stands for. A token in a URL is a secret, which belongs
    /// into the configuration of Conda and not into a declaration.
    pub fn find(&self, text: &str) -> Result<Vec<Channel>, CondaError> {
        let mut found = Vec::new();
        self.add(text, &mut found, 0)?;
        Ok(found)
    }

    fn add(&self, text: &str, found: &mut Vec<Channel>, depth: u32) -> Result<(), CondaError> {
        let name = text.trim().trim_end_matches('/');
        let wrong = |problem: &str| CondaError::Channel {
            channel: imagespec_core::login::redacted(name),
            problem: problem.to_owned(),
        };
        if let Some(channels) = self.several.get(name) {
            if depth > 4 {
                return Err(wrong("stands for itself"));
            }
            for channel in channels {
                self.add(channel, found, depth + 1)?;
            }
            return Ok(());
        }
        let is_folder = name.starts_with('/') || name.starts_with("file:");
        if is_folder && !self.folders {
            return Err(wrong("is a folder of the machine that builds"));
        }
        let url = if name.contains("://") || name.starts_with('/') {
            let mut plain = Self {
                secrets: Vec::new(),
                ..self.clone()
            };
            let url = plain.known(name).ok_or_else(|| wrong("has no valid URL"))?;
            if !plain.secrets.is_empty() {
                return Err(CondaError::Channel {
                    channel: url.to_string(),
                    problem: "has a secret in its URL, which belongs into `.condarc`".to_owned(),
                });
            }
            url
        } else {
            self.named(name).ok_or_else(|| wrong("has no valid name"))?
        };
        if !matches!(url.scheme(), "http" | "https" | "file") {
            return Err(wrong(
                "has a URL that is neither `https`, `http` nor `file`",
            ));
        }
        let channel = Channel {
            name: name.to_owned(),
            url,
        };
        if !found.iter().any(|known| known.url == channel.url) {
            found.push(channel);
        }
        Ok(())
    }

    /// Where the channel of a name is.
    fn named(&self, name: &str) -> Option<Url> {
        let usual = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let valid = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(usual);
        if !name.split('/').all(valid) {
            return None;
        }
        // A name with labels below it, `acme/label/dev`, is in the folder of the name.
        let folder = self.custom.iter().filter(|(custom, _)| {
            let rest = name.strip_prefix(custom.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        let folder = folder.max_by_key(|(custom, _)| custom.len());
        let folder = folder.map_or(&self.config.channel_alias, |(_, folder)| folder);
        let mut url = folder.clone();
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        url.join(&format!("{name}/")).ok()
    }

    /// The URL with its secrets, which must not be shown or kept.
    pub(crate) fn with_secrets(&self, url: &Url) -> Option<Url> {
        let below = |shown: &Url| url.as_str().strip_prefix(shown.as_str()).map(str::to_owned);
        let fitting = self.secrets.iter();
        let fitting = fitting.filter_map(|(shown, secret)| Some((below(shown)?, secret)));
        let (rest, secret) = fitting.min_by_key(|(rest, _)| rest.len())?;
        Url::parse(&format!("{secret}{rest}")).ok()
    }
}

/// The URL without user, password and token.
fn without_secrets(url: &Url) -> Url {
    let mut shown = url.clone();
    // Not every URL can have them, and one that cannot has none.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    if let Some(rest) = shown.path().strip_prefix(TOKEN) {
        let rest = rest.split_once('/').map_or("", |(_, rest)| rest).to_owned();
        shown.set_path(&format!("/{rest}"));
    }
    shown
}

/// The files that configure Conda and mamba, as far as they are there, those that count more last.
fn files(host: &Host) -> Vec<PathBuf> {
    if host.strangers {
        // The service's own machine may have one, which is its operator's.
        return existing(vec!["/etc/conda/.condarc".into()]);
    }
    let mut files: Vec<PathBuf> = vec!["/etc/conda/.condarc".into(), "/etc/conda/condarc".into()];
    if let Some(home) = &host.home {
        let config = host.variable("XDG_CONFIG_HOME");
        let config = config.map_or_else(|| home.join(".config"), PathBuf::from);
        files.extend([
            config.join("conda/.condarc"),
            home.join(".conda/.condarc"),
            home.join(".condarc"),
            home.join(".mambarc"),
        ]);
    }
    files.extend(host.variable("CONDARC").map(PathBuf::from));
    existing(files)
}

fn existing(files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.into_iter().filter(|file| file.is_file()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(condarc: &str) -> Result<Channels, CondaError> {
        let home = tempfile::tempdir().expect("a folder");
        fs_err::write(home.path().join(".condarc"), condarc).expect("a file");
        Channels::of(&Host {
            home: Some(home.path().to_owned()),
            variables: [("TOKEN".to_owned(), "tk-1234".to_owned())].into(),
            ..Host::default()
        })
    }

    fn urls(channels: &Channels, name: &str) -> Result<Vec<String>, String> {
        let found = channels.find(name).map_err(|error| error.to_string())?;
        Ok(found
            .iter()
            .map(|channel| channel.url.to_string())
            .collect())
    }

    #[test]
    fn names_lead_where_the_configuration_says() {
        let channels = configured(
            "channel_alias: https://mirror.test/conda\n\
             custom_channels:\n  acme: https://me:pw@acme.test/t/${TOKEN}/channels\n\
             default_channels:\n  - https://mirror.test/main\n  - https://mirror.test/r\n\
             channel_priority: flexible\nssl_verify: true\n",
        )
        .expect("a configuration");
        assert_eq!(channels.priority, Priority::Flexible);
        for (name, expected) in [
            (
                "conda-forge",
                vec!["https://mirror.test/conda/conda-forge/"],
            ),
            ("acme", vec!["https://acme.test/channels/acme/"]),
            (
                "acme/label/dev",
                vec!["https://acme.test/channels/acme/label/dev/"],
            ),
            ("acmes", vec!["https://mirror.test/conda/acmes/"]),
            (
                "defaults",
                vec!["https://mirror.test/main/", "https://mirror.test/r/"],
            ),
            ("http://host.test/a/", vec!["http://host.test/a/"]),
            ("/srv/channel", vec!["file:///srv/channel/"]),
        ] {
            let expected = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(urls(&channels, name), Ok(expected), "{name}");
        }
        let shown = Url::parse("https://acme.test/channels/acme/noarch/a.conda").expect("a URL");
        let secret = channels.with_secrets(&shown).expect("one with secrets");
        assert_eq!(
            secret.as_str(),
            "https://me:pw@acme.test/t/tk-1234/channels/acme/noarch/a.conda"
        );
    }

    #[test]
    fn what_is_no_channel_is_refused_without_its_secrets() {
        let channels = configured("").expect("a configuration");
        for (name, expected) in [
            ("../x", "the Conda channel `../x` has no valid name"),
            ("a b", "the Conda channel `a b` has no valid name"),
            (
                "ftp://host.test/a",
                "the Conda channel `ftp://host.test/a` has a URL that is neither `https`, `http` nor `file`",
            ),
        ] {
            assert_eq!(urls(&channels, name), Err(expected.to_owned()));
        }
        for url in [
            "https://a:hunter2@host.test/x",
            "https://host.test/t/hunter2/x",
        ] {
            let error = urls(&channels, url).expect_err("a secret");
            assert!(!error.contains("hunter2"), "{error}");
        }
        for condarc in [
            "channel_alias: nowhere",
            "custom_channels: {a: b}",
            "channel_priority: first",
            "- a",
        ] {
            configured(condarc).expect_err(condarc);
        }
    }

    #[test]
    fn folders_of_the_machine_are_not_for_strangers() {
        let host = Host {
            strangers: true,
            ..Host::default()
        };
        let channels = Channels::of(&host).expect("a configuration");
        for name in ["/srv/channel", "file:///srv/channel"] {
            channels.find(name).expect_err(name);
        }
    }
}
