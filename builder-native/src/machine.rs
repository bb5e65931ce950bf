//! What commands are lent of the machine while they run, without a trace in the layer they make.

use std::io;
use std::path::{Path, PathBuf};

use imagespec_core::contract::CA_BUNDLE;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::plan::PackageIndex;
use imagespec_python::index;
use tempfile::TempDir;

/// Where the machine's authorities appear.
const AUTHORITIES: &str = "/run/imagespec/ca.pem";
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
pub(crate) struct Loan {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) mounts: Vec<(PathBuf, PathBuf)>,
}

/// The machine's package indexes, proxies and authorities. What holds a user or a password is withheld: a
/// command could write it into its layer.
pub(crate) fn network(host: &Host) -> Loan {
    let settings = index::environment(host, &PackageIndex::default());
    let mut loan = Loan::default();
    for name in LENT {
        if let Some(value) = settings
            .get(name)
            .filter(|value| index::redacted(value) == **value)
        {
            loan.env.push((name.to_owned(), value.clone()));
        }
    }
    let named = settings.get("SSL_CERT_FILE").map(PathBuf::from);
    let bundle = named.unwrap_or_else(|| PathBuf::from(CA_BUNDLE));
    if bundle.is_file() {
        loan.env
            .push(("SSL_CERT_FILE".to_owned(), AUTHORITIES.to_owned()));
        loan.mounts.push((bundle, PathBuf::from(AUTHORITIES)));
    }
    loan
}

/// A program to be mounted into the sandbox; it exists as long as the folder.
pub(crate) fn program(
    host: &Host,
    name: &str,
    content: &str,
) -> Result<(TempDir, PathBuf), BuildError> {
    let write = || -> io::Result<(TempDir, PathBuf)> {
        let folder = tempfile::Builder::new()
            .prefix(".tools-")
            .tempdir_in(&host.cache_dir)?;
        let path = folder.path().join(Path::new(name));
        fs_err::write(&path, content)?;
        #[cfg(unix)]
        fs_err::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok((folder, path))
    };
    write().map_err(|error| BuildError::failed("cannot prepare the commands").caused_by(&error))
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
        let loan = network(&host);
        let names: Vec<_> = loan.env.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["https_proxy", "SSL_CERT_FILE"]);
        assert_eq!(loan.mounts, [(bundle, PathBuf::from(AUTHORITIES))]);
    }
}
