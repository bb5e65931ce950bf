//! What programs in a container are lent of the machine's indexes, without a trace in what they make.

use std::path::{Path, PathBuf};

use imagespec_core::contract::CA_BUNDLE;
use imagespec_core::host::Host;
use imagespec_core::plan::PackageIndex;

use super::{Settings, environment, redacted};

/// Variables that say where packages come from and how the network is reached.
const LENT: [&str; 11] = [
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_INSECURE_HOST",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Variables and read-only files of the machine.
#[derive(Debug, Default)]
pub struct Loan {
    /// Variables.
    pub env: Vec<(String, String)>,
    /// Files, and where they appear.
    pub mounts: Vec<(PathBuf, PathBuf)>,
    /// Names of what is not lent, as it holds a user or a password.
    pub withheld: Vec<String>,
}

/// The machine's package indexes, proxies and authorities; these appear at `authorities`. What holds a user or a
/// password is withheld: a command could write it into its layer.
pub fn network(host: &Host, authorities: &Path) -> Loan {
    let settings = environment(host, &PackageIndex::default());
    let mut loan = Loan::default();
    for name in LENT {
        match settings.get(name) {
            Some(value) if redacted(value) == *value => {
                loan.env.push((name.to_owned(), value.clone()));
            }
            Some(_) => loan.withheld.push(name.to_owned()),
            None => {}
        }
    }
    loan.authorities(settings.get("SSL_CERT_FILE"), authorities);
    loan
}

/// Variables of uv that name files or folders.
const FILES: [&str; 5] = [
    "UV_CONFIG_FILE",
    "UV_CONSTRAINT",
    "UV_OVERRIDE",
    "UV_BUILD_CONSTRAINT",
    "UV_FIND_LINKS",
];
/// Variables of uv that are about this machine.
const OWN: [&str; 4] = [
    "UV_CACHE_DIR",
    "UV_PYTHON",
    "UV_PYTHON_INSTALL_DIR",
    "UV_LINK_MODE",
];

/// Whether a variable of uv is about packages and where they come from, on whichever machine.
pub fn is_about_packages(variable: &str) -> bool {
    variable.starts_with("UV_") && !OWN.contains(&variable)
}

/// As [`network`], for uv where it builds: what says which packages there are is lent with its logins, as the
/// requirements of a build come from the same indexes.
pub fn indexes(settings: &Settings, authorities: &Path) -> Loan {
    let mut loan = Loan::default();
    for (name, value) in &settings.env {
        if is_about_packages(name) || LENT.contains(&name.as_str()) {
            loan.env.push((name.clone(), value.clone()));
        }
    }
    let named = FILES.iter().filter_map(|name| settings.env.get(*name));
    let links = settings.options.iter();
    let links = links.filter_map(|option| option.strip_prefix("--find-links="));
    let words = named.map(String::as_str).chain(links);
    for path in words
        .flat_map(|words| words.split([' ', ',']))
        .map(Path::new)
    {
        if path.is_absolute() && path.exists() {
            loan.mounts.push((path.to_owned(), path.to_owned()));
        }
    }
    loan.mounts.extend(settings.configuration.iter().cloned());
    loan.authorities(settings.env.get("SSL_CERT_FILE"), authorities);
    loan
}

impl Loan {
    /// Lends what the machine's programs trust.
    fn authorities(&mut self, named: Option<&String>, at: &Path) {
        let bundle = named.map_or_else(|| PathBuf::from(CA_BUNDLE), PathBuf::from);
        if bundle.is_file() {
            let path = at.to_string_lossy().into_owned();
            self.env.push(("SSL_CERT_FILE".to_owned(), path));
            self.mounts.push((bundle, at.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_a_password_is_not_lent() {
        let folder = tempfile::tempdir().expect("a folder");
        let bundle = folder.path().join("ca.pem");
        fs_err::write(&bundle, "authorities").expect("a file");
        let variables = [
            ("PIP_INDEX_URL", "https://me:secret@index.example/simple"),
            ("https_proxy", "http://proxy.example:3128"),
            ("SSL_CERT_FILE", bundle.to_str().expect("a path")),
            ("PIP_CONFIG_FILE", "/dev/null"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let host = Host {
            variables: variables.into(),
            ..Host::default()
        };
        let at = Path::new("/run/ca.pem");
        let loan = network(&host, at);
        let names: Vec<_> = loan.env.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["https_proxy", "SSL_CERT_FILE"]);
        assert_eq!(loan.withheld, ["UV_DEFAULT_INDEX"]);
        assert_eq!(loan.mounts, [(bundle, at.to_owned())]);
    }
}
