//! Users and passwords that a person wrote into URLs: taken out before anything is planned, shown or kept.

use std::fmt;

/// What ends the authority of a URL in a text (RFC 3986, section 3.2), and what ends a URL that stands in one.
const AFTER_AUTHORITY: &str = "/?#\\\"'`<>";
const AFTER_URL: &str = "\"'`<>";

/// A user, and a password where there is one, as they were written: percent-encoded, and perhaps with `${NAME}`
/// in place of a variable's value.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The URL it stood in, without it.
    pub url: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: Option<String>,
}

impl Login {
    /// `user:password`, as written.
    pub fn userinfo(&self) -> String {
        match &self.password {
            Some(password) => format!("{}:{password}", self.user),
            None => self.user.clone(),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// The logins of package indexes that a declaration and its files hold. They travel beside the plan, never in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexLogins(Vec<Login>);

impl FromIterator<Login> for IndexLogins {
    fn from_iter<I: IntoIterator<Item = Login>>(logins: I) -> Self {
        Self(logins.into_iter().collect())
    }
}

impl IndexLogins {
    /// `text` without the logins in its URLs, which are kept here. Users of version control over SSH are no
    /// secrets and stay; what follows a `#` at the start of a line or after a blank is a comment, whose logins
    /// are taken out and forgotten. The lines stay the same in number.
    pub fn strip(&mut self, text: &str) -> String {
        let mut stripped = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            let comment = comment(line).unwrap_or(line.len());
            stripped.push_str(&without_logins(&line[..comment], |login| {
                if !self.0.contains(&login) {
                    self.0.push(login);
                }
            }));
            stripped.push_str(&without_logins(&line[comment..], drop));
        }
        stripped
    }

    /// Those of one URL, without and with its login.
    pub fn get(&self, url: &str) -> Option<&Login> {
        self.0.iter().find(|login| login.url == url)
    }

    /// All of them, in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Login> {
        self.0.iter()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `text` with the user and password of every URL in it left out, whatever they are good for.
pub fn redacted(text: &str) -> String {
    replaced(text, |_, _| None)
}

fn without_logins(text: &str, mut found: impl FnMut(Login)) -> String {
    replaced(text, |userinfo, around| {
        let (user, password) = match userinfo.split_once(':') {
            Some((user, password)) => (user, Some(password.to_owned())),
            None => (userinfo, None),
        };
        if password.is_none() && around.scheme.ends_with("ssh") {
            return Some(userinfo.to_owned());
        }
        found(Login {
            url: format!("{}://{}", around.scheme, around.rest),
            user: user.to_owned(),
            password,
        });
        None
    })
}

/// A URL around its login.
struct Around<'a> {
    scheme: &'a str,
    rest: &'a str,
}

/// `text` with every login replaced by what `by` makes of it.
fn replaced(text: &str, mut by: impl FnMut(&str, Around<'_>) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = (&rest[..at], &rest[at + 3..]);
        out.push_str(&rest[..at + 3]);
        let end = |ends: &str| {
            after
                .find(|c: char| c.is_whitespace() || ends.contains(c))
                .unwrap_or(after.len())
        };
        rest = after;
        let Some(login) = after[..end(AFTER_AUTHORITY)].rfind('@') else {
            continue;
        };
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let scheme = before
            .char_indices()
            .rev()
            .take_while(|(_, c)| is_scheme(*c))
            .last()
            .map_or("", |(start, _)| &before[start..]);
        rest = &after[login + 1..];
        let around = Around {
            scheme,
            rest: &after[login + 1..end(AFTER_URL).max(login + 1)],
        };
        if let Some(kept) = by(&after[..login], around) {
            out.push_str(&kept);
            out.push('@');
        }
    }
    out + rest
}

/// Where a comment begins in a line of a requirements file or of TOML.
fn comment(line: &str) -> Option<usize> {
    line.match_indices('#')
        .map(|(at, _)| at)
        .find(|at| line[..*at].trim().is_empty() || line[..*at].ends_with([' ', '\t']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(text: &str) -> (String, Vec<(String, String)>) {
        let mut logins = IndexLogins::default();
        let stripped = logins.strip(text);
        let found = logins
            .iter()
            .map(|login| (login.url.clone(), login.userinfo()))
            .collect();
        (stripped, found)
    }

    #[test]
    fn logins_are_taken_out_of_urls_wherever_these_stand() {
        for (text, stripped, url, login) in [
            (
                "https://me:secret@index.example/simple",
                "https://index.example/simple",
                "https://index.example/simple",
                "me:secret",
            ),
            (
                "--find-links=http://token@a.example:8080/x?y#z rest",
                "--find-links=http://a.example:8080/x?y#z rest",
                "http://a.example:8080/x?y#z",
                "token",
            ),
            (
                "x @ https://u:p%40ss@h.example/x-1-py3-none-any.whl ; python_version > '3'",
                "x @ https://h.example/x-1-py3-none-any.whl ; python_version > '3'",
                "https://h.example/x-1-py3-none-any.whl",
                "u:p%40ss",
            ),
            (
                "url = \"https://u:odd@pass@h.example/\"",
                "url = \"https://h.example/\"",
                "https://h.example/",
                "u:odd@pass",
            ),
            (
                "git+https://u:${TOKEN}@h.example/r@v1",
                "git+https://h.example/r@v1",
                "git+https://h.example/r@v1",
                "u:${TOKEN}",
            ),
            (
                "git+ssh://me:secret@h.example/r",
                "git+ssh://h.example/r",
                "git+ssh://h.example/r",
                "me:secret",
            ),
        ] {
            let found = vec![(url.to_owned(), login.to_owned())];
            assert_eq!(strip(text), (stripped.to_owned(), found), "{text}");
        }
        for plain in [
            "https://index.example/a@b",
            "https://index.example?a@b",
            "git+ssh://git@host.example/x",
            "a@b",
            "://",
        ] {
            assert_eq!(strip(plain), (plain.to_owned(), Vec::new()));
        }
    }

    #[test]
    fn every_line_stays_and_comments_hold_no_logins() {
        let text = "# https://old:1@h.example/\n-i https://u:2@h.example/ # https://x:3@h.example/\nsix\r\n";
        let (stripped, found) = strip(text);
        assert_eq!(
            stripped,
            "# https://h.example/\n-i https://h.example/ # https://h.example/\nsix\r\n"
        );
        assert_eq!(found, [("https://h.example/".to_owned(), "u:2".to_owned())]);
    }

    #[test]
    fn two_urls_in_one_text_lose_their_logins() {
        assert_eq!(
            redacted("https://a:b@c.example,https://d:e@f.example git+ssh://git@g.example"),
            "https://c.example,https://f.example git+ssh://g.example"
        );
    }

    #[test]
    fn nothing_shows_a_login() {
        let mut logins = IndexLogins::default();
        logins.strip("https://me:secret@h.example/");
        assert!(!format!("{logins:?}").contains("secret"));
        assert!(logins.get("https://h.example/").is_some());
    }
}
