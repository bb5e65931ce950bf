//! Credentials of package indexes: kept apart from URLs, and out of everything that is shown.

use std::collections::BTreeMap;
use std::fmt;

use url::Url;

/// User and password for one server. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password, where there is one.
    pub password: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Credentials by scheme, host and port.
#[derive(Debug, Clone, Default)]
pub(super) struct Store(BTreeMap<(String, String, u16), Credentials>);

impl Store {
    /// Remembers the credentials in `url`, if it has some.
    pub(super) fn learn(&mut self, url: &Url) {
        if url.username().is_empty() && url.password().is_none() {
            return;
        }
        let decode = |text: &str| percent_decoded(text);
        let credentials = Credentials {
            user: decode(url.username()),
            password: url.password().map(decode),
        };
        if let Some(server) = server(url) {
            self.0.insert(server, credentials);
        }
    }

    pub(super) fn get(&self, url: &Url) -> Option<&Credentials> {
        self.0.get(&server(url)?)
    }
}

fn server(url: &Url) -> Option<(String, String, u16)> {
    let host = url.host_str()?.to_ascii_lowercase();
    Some((url.scheme().to_owned(), host, url.port_or_known_default()?))
}

/// `text` with its `%` escapes resolved; what is not UTF-8 then becomes replacement characters.
pub(crate) fn percent_decoded(text: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `url` without user and password.
pub fn without_credentials(url: &Url) -> Url {
    let mut url = url.clone();
    // A URL that cannot have a user has none to remove.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// `text` with the credentials of every URL in it replaced by `***`.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '`' | '<' | '>');
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        // A password that was written without escapes may hold a `/`: then the `@` is in a later part.
        let word = &after[..after.find(|c: char| c.is_whitespace() || "\"'`<>".contains(c)).unwrap_or(after.len())];
        let unescaped = word
            .rfind('@')
            .filter(|at| word[..*at].split_once(':').is_some_and(|(_, secret)| !secret.starts_with(|c: char| c.is_ascii_digit())));
        match authority.rfind('@').or(unescaped) {
            Some(at) => {
                out.push_str("***");
                rest = &after[at..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credentials_are_shown() {
        for (text, shown) in [
            ("get https://user:pass@host.invalid/simple failed", "get https://***@host.invalid/simple failed"),
            ("`https://token@host.invalid`", "`https://***@host.invalid`"),
            ("a http://u:p%40@h.invalid:80/x, https://v:q@h.invalid", "a http://***@h.invalid:80/x, https://***@h.invalid"),
            ("git+ssh://git@host.invalid/repo", "git+ssh://***@host.invalid/repo"),
            ("https://u:a/b@h.invalid/x", "https://***@h.invalid/x"),
            ("https://h.invalid/a@1.0", "https://h.invalid/a@1.0"),
            ("https://h.invalid:8080/a@1.0", "https://h.invalid:8080/a@1.0"),
            ("no url: a@b", "no url: a@b"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    #[test]
    fn credentials_belong_to_one_server() {
        let url = |text: &str| text.parse::<Url>().unwrap();
        let mut store = Store::default();
        store.learn(&url("https://u:p%40ss@Host.invalid/simple"));
        store.learn(&url("https://other.invalid/simple"));
        let found = store.get(&url("https://host.invalid:443/files/x")).unwrap();
        assert_eq!((found.user.as_str(), found.password.as_deref()), ("u", Some("p@ss")));
        assert!(store.get(&url("http://host.invalid/")).is_none());
        assert!(store.get(&url("https://other.invalid/")).is_none());
        assert!(!format!("{store:?}").contains("p@ss"));
    }
}
