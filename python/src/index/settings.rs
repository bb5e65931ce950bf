//! What uv is told of indexes: by its environment, its options, and a netrc file that has no name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use imagespec_core::context::SecretMount;
use imagespec_core::digest::Framed;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::login::IndexLogins;
use imagespec_core::plan::PackageIndex;
use url::Url;

use super::credentials::{NETRC, lent_netrc, netrc, netrc_entries};
use super::{arguments, environment_with, no_index, sources};

/// The largest secret that logins are looked for in, in bytes.
const SECRET: u64 = 1 << 20;
/// Where uv looks for the configuration of root.
const OWN_CONFIGURATION: &str = "/root/.config/uv/uv.toml";
/// Options that count where the requirements of a build are resolved, too.
const BUILDING: [&str; 6] = [
    "--no-index",
    "--find-links",
    "--allow-insecure-host",
    "--index-strategy",
    "--exclude-newer",
    "--keyring-provider",
];

/// What uv is told of indexes.
#[derive(Clone)]
pub struct Settings {
    /// Its environment on this machine, logins included.
    pub env: BTreeMap<String, String>,
    /// Its options.
    pub options: Vec<String>,
    /// The indexes that the declaration names in any of its fields, without logins.
    pub declared: PackageIndex,
    /// The person's netrc file with the logins of the declaration.
    pub(crate) netrc: Option<String>,
    /// As much of it as concerns the indexes and the declaration.
    lent: Option<String>,
    /// Files of uv's own configuration, and where uv looks for them when root runs it.
    pub configuration: Vec<(PathBuf, PathBuf)>,
}

impl Settings {
    /// Those of a declaration on this machine.
    pub fn of(
        host: &Host,
        declared: &PackageIndex,
        logins: &IndexLogins,
    ) -> Result<Self, BuildError> {
        let (index, mut options) = arguments(declared)?;
        if no_index(host) {
            options.push("--no-index".to_owned());
        }
        let env = environment_with(host, &index, logins);
        Ok(Self {
            netrc: netrc(host, logins)?,
            configuration: configuration(host),
            lent: lent_netrc(host, logins, &env)?,
            declared: index,
            env,
            options,
        })
    }

    /// The netrc file for uv where code of packages runs beside it: it has the logins of indexes and of the
    /// declaration, and no other of the machine's.
    pub fn lent_netrc(&self) -> Option<&str> {
        self.lent.as_deref()
    }

    /// The options that count where a source distribution is built.
    pub fn building(&self) -> impl Iterator<Item = &str> {
        let counts = |option: &&str| BUILDING.contains(&option.split('=').next().unwrap_or(option));
        self.options.iter().map(String::as_str).filter(counts)
    }

    /// Adds which packages there are to choose from to a digest.
    pub fn frame(&self, key: &mut Framed) {
        key.list(sources(&self.env), |key, (name, value)| {
            key.text(&name).text(&value);
        });
        key.list(&self.options, |key, option| {
            key.text(option);
        });
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("sources", &sources(&self.env))
            .finish_non_exhaustive()
    }
}

fn configuration(host: &Host) -> Vec<(PathBuf, PathBuf)> {
    let own = host.variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let own = own.or_else(|| host.home.as_ref().map(|home| home.join(".config")));
    let system = ["/etc/uv/uv.toml", "/etc/xdg/uv/uv.toml"].map(PathBuf::from);
    let own = own.map(|folder| (folder.join("uv/uv.toml"), PathBuf::from(OWN_CONFIGURATION)));
    let system = system.into_iter().map(|file| (file.clone(), file));
    own.into_iter()
        .chain(system)
        .filter(|(file, _)| file.is_file())
        .collect()
}

/// The logins of a declaration, and those in its secrets: netrc files, and URLs wherever they stand, as git's
/// credential store and uv's configuration have them.
pub fn logins_with(declared: &IndexLogins, secrets: &[SecretMount]) -> IndexLogins {
    let mut logins = declared.clone();
    for secret in secrets {
        let small = fs_err::metadata(&secret.source).is_ok_and(|file| file.len() <= SECRET);
        let Some(text) = small
            .then(|| fs_err::read_to_string(&secret.source).ok())
            .flatten()
        else {
            continue;
        };
        logins.strip(&text);
        for (host, (user, password)) in netrc_entries(&text) {
            let url = Url::parse(&format!("{NETRC}://{host}/"));
            if let Ok(mut url) = url
                && url.set_username(&user).is_ok()
                && url.set_password(password.as_deref()).is_ok()
            {
                logins.strip(url.as_str());
            }
        }
    }
    logins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_tell_logins() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = |name: &str, text: &str| {
            let source = folder.path().join(name);
            fs_err::write(&source, text).expect("a file");
            SecretMount {
                source,
                target: "/run/x".into(),
            }
        };
        let secrets = [
            secret("netrc", "machine h.example\n  login me\n  password a/b c\n"),
            secret("store", "https://you:word@git.example\n"),
            secret("other", "token"),
        ];
        let logins = logins_with(&IndexLogins::default(), &secrets);
        let found: Vec<_> = logins
            .iter()
            .map(|login| (login.url.as_str(), login.userinfo()))
            .collect();
        assert_eq!(
            found,
            [
                ("netrc://h.example/", "me:a%2Fb".to_owned()),
                ("https://git.example", "you:word".to_owned())
            ]
        );
    }

    #[test]
    fn only_logins_of_indexes_are_lent() {
        let folder = tempfile::tempdir().expect("a folder");
        let netrc =
            "machine index.example login a password 1\nmachine mail.example login b password 2\n";
        fs_err::write(folder.path().join(".netrc"), netrc).expect("a file");
        let configuration = folder.path().join(".config/uv/uv.toml");
        fs_err::create_dir_all(folder.path().join(".config/uv")).expect("a folder");
        fs_err::write(&configuration, "").expect("a file");
        let host = Host {
            variables: [("PIP_CONFIG_FILE".to_owned(), "/dev/null".to_owned())].into(),
            home: Some(folder.path().to_owned()),
            ..Host::default()
        };
        let mut logins = IndexLogins::default();
        let index = PackageIndex {
            url: Some(logins.strip("https://index.example/simple")),
            ..PackageIndex::default()
        };
        logins.strip("x @ https://u:3@files.example/x.tar.gz");
        let settings = Settings::of(&host, &index, &logins).expect("settings");
        assert_eq!(
            settings.lent_netrc(),
            Some(
                "machine files.example login u password 3\nmachine index.example login a password 1\n"
            )
        );
        let lent = (configuration, PathBuf::from(OWN_CONFIGURATION));
        assert!(settings.configuration.contains(&lent));
        assert!(settings.netrc.is_some_and(|text| text.contains("mail")));
    }
}
