//! Credentials of package indexes: kept apart from URLs, and never shown.

use std::collections::BTreeMap;
use std::fmt;

use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::login::IndexLogins;
use url::Url;

use super::{environment, sources_as_written};

/// The scheme of a login that is for a host, whatever its port, as netrc files have them.
pub(super) const NETRC: &str = "netrc";

/// User and password of the servers that the machine's configuration knows, by scheme, host and port.
#[derive(Default)]
pub struct Credentials {
    servers: BTreeMap<(String, String, u16), Login>,
    /// By host alone, of the netrc file.
    hosts: BTreeMap<String, Login>,
    /// Of the declaration, by URL.
    declared: Vec<(Url, Login)>,
}

/// A user, and a password where there is one.
pub(crate) type Login = (String, Option<String>);

impl Credentials {
    /// Those of the declaration, those in the URLs that pip or uv is configured with, and those of the netrc file.
    pub fn of(host: &Host, logins: &IndexLogins) -> Self {
        let declared = logins.iter().filter_map(|login| {
            let decoded = |text: &str| percent_decoded(&host.expanded(text));
            let written = (decoded(&login.user), login.password.as_deref().map(decoded));
            // Links to version control name the protocol below after a `+`.
            let url = login
                .url
                .rsplit_once('+')
                .map_or(login.url.as_str(), |(before, url)| {
                    if before.contains(':') {
                        &login.url
                    } else {
                        url
                    }
                });
            Some((Url::parse(url).ok()?, written))
        });
        let mut credentials = Self {
            declared: declared.collect(),
            ..Self::default()
        };
        for url in urls(&environment(host, &super::PackageIndex::default())) {
            credentials.learn(&url);
        }
        if let Some(text) = machines_netrc(host) {
            credentials.netrc(&text);
        }
        for (url, login) in &credentials.declared {
            if let Some(name) = url.host_str().filter(|_| url.scheme() == NETRC) {
                credentials.hosts.insert(name.to_owned(), login.clone());
            }
        }
        credentials
    }

    /// What to say to the server of `url`, and to no other. Where the declaration has several logins for the server,
    /// that of the URL which is most like this one counts.
    pub fn get(&self, url: &Url) -> Option<&(String, Option<String>)> {
        let declared = self
            .declared
            .iter()
            .filter(|(known, _)| server(known) == server(url));
        if let Some((_, login)) = declared.max_by_key(|(known, _)| shared_path(known, url)) {
            return Some(login);
        }
        let of_host = || {
            self.hosts
                .get(url.host_str()?)
                .filter(|_| url.scheme() == "https" || is_own(url))
        };
        self.servers.get(&server(url)?).or_else(of_host)
    }

    /// The logins of the declaration by host alone, as a netrc file has them: the first of a host counts.
    fn declared_hosts(&self) -> Result<BTreeMap<&str, &Login>, BuildError> {
        let mut hosts: BTreeMap<&str, &Login> = BTreeMap::new();
        for (url, login) in &self.declared {
            let Some(name) = url.host_str() else { continue };
            let (user, password) = (&login.0, login.1.as_deref().unwrap_or_default());
            let blank = |c: char| c.is_whitespace() || c.is_control();
            if user.contains(blank) || password.contains(blank) {
                let problem = "a user or a password for a package index has blanks";
                return Err(BuildError::input(format!("{problem}: `{name}`")).hint(
                    "write the login into `pip_index` or `pip_extra_index_url` only, or keep it in pip's configuration",
                ));
            }
            hosts.entry(name).or_insert(login);
        }
        Ok(hosts)
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

/// Whether a server is on this machine.
fn is_own(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// How many leading components the paths of two URLs share.
fn shared_path(one: &Url, other: &Url) -> usize {
    let parts = one.path().split('/').zip(other.path().split('/'));
    parts.take_while(|(a, b)| a == b).count()
}

/// The content of the machine's netrc file.
fn machines_netrc(host: &Host) -> Option<String> {
    let path = host.variable("NETRC").map(Into::into);
    let path = path.or_else(|| host.home.as_ref().map(|home| home.join(".netrc")))?;
    fs_err::read_to_string(path).ok()
}

/// The machine's netrc file and, after it, the logins of the declaration: the form in which uv takes logins for URLs
/// that stand in files. `None` where the declaration has none.
pub(crate) fn netrc(host: &Host, logins: &IndexLogins) -> Result<Option<String>, BuildError> {
    let credentials = Credentials::of(host, logins);
    let hosts = credentials.declared_hosts()?;
    if hosts.is_empty() {
        return Ok(None);
    }
    let mut text = machines_netrc(host).unwrap_or_default();
    for (name, login) in hosts {
        text.push('\n');
        text.push_str(&entry(name, login));
    }
    Ok(Some(text))
}

/// As [`netrc`], with no more of the machine's than the logins of the indexes in `env`.
pub(super) fn lent_netrc(
    host: &Host,
    logins: &IndexLogins,
    env: &BTreeMap<String, String>,
) -> Result<Option<String>, BuildError> {
    let credentials = Credentials::of(host, logins);
    let mut hosts = credentials.declared_hosts()?;
    for url in urls(env) {
        let known = url
            .host_str()
            .and_then(|name| credentials.hosts.get_key_value(name));
        if let Some((name, login)) = known {
            hosts.entry(name).or_insert(login);
        }
    }
    let text: String = hosts
        .into_iter()
        .map(|(name, login)| entry(name, login))
        .collect();
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// The entries of a netrc file, by host.
pub(super) fn netrc_entries(text: &str) -> BTreeMap<String, Login> {
    let mut credentials = Credentials::default();
    credentials.netrc(text);
    credentials.hosts
}

/// An entry of a netrc file.
fn entry(name: &str, (user, password): &Login) -> String {
    let password = password.as_deref().unwrap_or_default();
    format!("machine {name} login {user} password {password}\n")
}

/// The URLs of indexes in an environment.
fn urls(env: &BTreeMap<String, String>) -> impl Iterator<Item = Url> {
    let words = sources_as_written(env).flat_map(|(_, urls)| urls.split([' ', ',', '\n']));
    words.filter_map(|word| {
        // A named index is written `name=URL`.
        let url = word.find("://").map_or(word, |at| {
            word[..at]
                .rfind('=')
                .map_or(word, |equals| &word[equals + 1..])
        });
        Url::parse(url).ok()
    })
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
        let credentials = Credentials::of(&host, &IndexLogins::default());
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
    fn logins_of_the_declaration_win_and_the_nearest_path_counts() {
        let mut logins = IndexLogins::default();
        logins.strip("https://a:1@h.invalid/one/simple https://${WHO}:p%40ss@h.invalid/two/simple");
        let host = Host {
            variables: [
                ("PIP_INDEX_URL", "https://m:x@h.invalid/"),
                ("WHO", "me"),
                ("NETRC", "/nowhere"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            ..Host::default()
        };
        let credentials = Credentials::of(&host, &logins);
        let login = |text: &str| credentials.get(&text.parse().unwrap()).cloned();
        let of = |user: &str, password: &str| Some((user.to_owned(), Some(password.to_owned())));
        assert_eq!(login("https://h.invalid/one/files/x.whl"), of("a", "1"));
        assert_eq!(login("https://h.invalid/two/files/x.whl"), of("me", "p@ss"));
        assert_eq!(login("http://h.invalid/two/files/x.whl"), None);
        let text = netrc(&host, &logins).unwrap().unwrap();
        assert_eq!(text, "\nmachine h.invalid login a password 1\n");
        logins.strip("https://a:b%20c@other.invalid/");
        let error = netrc(&host, &logins).unwrap_err();
        assert!(!error.message.contains("b c") && error.message.contains("other.invalid"));
        assert_eq!(netrc(&host, &IndexLogins::default()), Ok(None));
    }

    #[test]
    fn variables_stand_in_for_logins() {
        let host = Host {
            variables: [("A".to_owned(), "x".to_owned())].into(),
            ..Host::default()
        };
        assert_eq!(host.expanded("${A}:${B}${A}${"), "x:${B}x${");
    }

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(percent_decoded("a%2Bcu%20%4"), "a+cu %4");
        assert_eq!(percent_decoded("1%212.0%"), "1!2.0%");
    }
}
