//! Credentials of package indexes: kept apart from URLs, and never shown.

use std::collections::BTreeMap;
use std::fmt;

use imagespec_core::host::Host;
use url::Url;

use super::{environment, sources_as_written};

/// User and password of the servers that the machine's configuration knows, by scheme, host and port.
#[derive(Default)]
pub(crate) struct Credentials {
    servers: BTreeMap<(String, String, u16), Login>,
    /// By host alone, of the netrc file.
    hosts: BTreeMap<String, Login>,
}

/// A user, and a password where there is one.
pub(crate) type Login = (String, Option<String>);

impl Credentials {
    /// Those in the URLs that pip or uv is configured with, and those of the netrc file.
    pub(crate) fn of(host: &Host) -> Self {
        let mut credentials = Self::default();
        for (_, urls) in sources_as_written(&environment(host, &super::PackageIndex::default())) {
            for url in urls.split([' ', ',', '\n']) {
                // A named index is written `name=URL`.
                let url = url.find("://").map_or(url, |at| {
                    url[..at]
                        .rfind('=')
                        .map_or(url, |equals| &url[equals + 1..])
                });
                if let Ok(url) = Url::parse(url) {
                    credentials.learn(&url);
                }
            }
        }
        let netrc = host.variable("NETRC").map(Into::into);
        let netrc = netrc.or_else(|| host.home.as_ref().map(|home| home.join(".netrc")));
        if let Some(Ok(text)) = netrc.map(fs_err::read_to_string) {
            credentials.netrc(&text);
        }
        credentials
    }

    /// What to say to the server of `url`, and to no other.
    pub(crate) fn get(&self, url: &Url) -> Option<&Login> {
        let of_host = || {
            self.hosts
                .get(url.host_str()?)
                .filter(|_| url.scheme() == "https")
        };
        self.servers.get(&server(url)?).or_else(of_host)
    }

    fn learn(&mut self, url: &Url) {
        if url.username().is_empty() && url.password().is_none() {
            return;
        }
        let login = (
            percent_decoded(url.username()),
            url.password().map(percent_decoded),
        );
        if let Some(server) = server(url) {
            self.servers.insert(server, login);
        }
    }

    /// The `machine` entries of a netrc file, whose format is that of `ftp(1)`.
    fn netrc(&mut self, text: &str) {
        let mut words = text.split_whitespace();
        let mut host = None;
        while let Some(word) = words.next() {
            let login = host
                .as_ref()
                .map(|host: &String| self.hosts.entry(host.clone()).or_default());
            match (word, login) {
                ("machine", _) => host = words.next().map(str::to_ascii_lowercase),
                ("default" | "macdef", _) => host = None,
                ("login", Some(login)) => words.next().unwrap_or_default().clone_into(&mut login.0),
                ("password", Some(login)) => login.1 = words.next().map(str::to_owned),
                _ => {}
            }
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.servers.keys()).finish()
    }
}

fn server(url: &Url) -> Option<(String, String, u16)> {
    let host = url.host_str()?.to_owned();
    Some((url.scheme().to_owned(), host, url.port_or_known_default()?))
}

/// `text` with its `%` escapes resolved; what is not UTF-8 then becomes replacement characters.
pub(crate) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escape = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%');
        let mut decoded = [0];
        if escape.is_some_and(|digits| hex::decode_to_slice(digits, &mut decoded).is_ok()) {
            out.push(decoded[0]);
            at += 3;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_their_own_server_only() {
        let url = |text: &str| text.parse::<Url>().unwrap();
        let home = tempfile::tempdir().unwrap();
        let netrc = "machine files.invalid login me password pa55\ndefault login x password y\n";
        fs_err::write(home.path().join(".netrc"), netrc).unwrap();
        let variables = [
            ("PIP_INDEX_URL", "https://u:p%40ss@Host.invalid/simple"),
            (
                "UV_INDEX",
                "mine=http://a:b@127.0.0.1:99/simple https://c.invalid",
            ),
        ];
        let host = Host {
            variables: variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            home: Some(home.path().to_owned()),
            ..Host::default()
        };
        let credentials = Credentials::of(&host);
        let login = |text| {
            credentials
                .get(&url(text))
                .map(|(user, word)| (user.as_str(), word.as_deref()))
        };
        assert_eq!(
            login("https://host.invalid:443/files/x"),
            Some(("u", Some("p@ss")))
        );
        assert_eq!(login("http://127.0.0.1:99/x"), Some(("a", Some("b"))));
        assert_eq!(login("https://files.invalid/x"), Some(("me", Some("pa55"))));
        for other in [
            "http://host.invalid/",
            "https://c.invalid/",
            "http://127.0.0.1/",
            "http://files.invalid/",
        ] {
            assert_eq!(login(other), None, "{other}");
        }
        assert!(!format!("{credentials:?}").contains("p@ss"));
    }

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(percent_decoded("a%2Bcu%20%4"), "a+cu %4");
        assert_eq!(percent_decoded("1%212.0%"), "1!2.0%");
    }
}
