//! Names of images: `[registry/]repository[:tag][@digest]`, by the grammar and the defaults of
//! `distribution/reference`, which Docker, Podman and Kubernetes share.

use std::fmt;
use std::str::FromStr;

use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;

/// The registry of a name that has none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const OFFICIAL: &str = "library/";
const NAME_LIMIT: usize = 255;
const TAG_LIMIT: usize = 128;

/// A name of an image, with every default filled in.
///
/// It displays in full, so that equal references are written alike: `python:3.12` as
/// `docker.io/library/python:3.12`. [`Reference::familiar`] is the short form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and optional port of the registry: `docker.io`, `localhost:5000`.
    pub registry: String,
    /// Path in the registry: `library/python`.
    pub repository: String,
    /// The tag, if one is named.
    pub tag: Option<String>,
    /// The digest, if one is named; it wins over the tag.
    pub digest: Option<Digest>,
}

/// Why a text is not a [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an image reference, {reason}: `{text}`")]
pub struct ReferenceError {
    text: String,
    reason: &'static str,
}

impl Reference {
    /// `registry/repository`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The name as people write it: without `docker.io` and `library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(path) = full.strip_prefix("docker.io/") else {
            return full;
        };
        // `library/a/b` is no official image, and `a/b` would be another name.
        match path.strip_prefix(OFFICIAL) {
            Some(official) if !official.contains('/') => official.to_owned(),
            _ => path.to_owned(),
        }
    }

    /// What a registry is asked for: the digest, else the tag, else `latest`.
    pub fn identifier(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The same reference with `latest` where neither tag nor digest is named.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The same repository under another tag, without digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        check_tag(tag).map_err(|reason| ReferenceError {
            text: tag.to_owned(),
            reason,
        })?;
        Ok(Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    /// The same repository and tag at `digest`.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|reason| ReferenceError {
            text: text.to_owned(),
            reason,
        })
    }
}

impl From<ReferenceError> for BuildError {
    fn from(error: ReferenceError) -> Self {
        Self::input(error.to_string())
            .hint("write it as `[registry/]name[:tag][@sha256:…]`, the name in lower case")
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.contains("://") {
        return Err("it starts with a URL scheme");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let digest = digest
        .map(|digest| {
            digest
                .parse()
                .map_err(|_| "its digest is not `sha256:` and 64 hexadecimal digits")
        })
        .transpose()?;
    let (registry, path) = split_registry(rest);
    let (repository, tag) = match path.rsplit_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (path, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    check_registry(registry)?;
    if rest.len() == 64 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("it is a bare image id");
    }
    let registry = match registry {
        "index.docker.io" => DEFAULT_REGISTRY,
        registry => registry,
    };
    let is_official = !repository.is_empty() && !repository.contains('/');
    let repository = if registry == DEFAULT_REGISTRY && is_official {
        format!("{OFFICIAL}{repository}")
    } else {
        repository.to_owned()
    };
    check_repository(&repository)?;
    Ok(Reference {
        registry: registry.to_owned(),
        repository,
        tag: tag.map(str::to_owned),
        digest,
    })
}

/// The first component is a registry only if it cannot be part of a repository's path.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let (host, port) = if let Some(rest) = registry.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or("its registry has no `]`")?;
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("its registry is not an IPv6 address");
        }
        (
            None,
            port.strip_prefix(':').or((!port.is_empty()).then_some("")),
        )
    } else {
        match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        }
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("its registry's port is not a number up to 65535");
    }
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if host.is_some_and(|host| !host.split('.').all(label)) {
        return Err("its registry is not a host name");
    }
    Ok(())
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.is_empty() {
        return Err("it names no repository");
    }
    if repository.len() > NAME_LIMIT {
        return Err("its name is longer than 255 characters");
    }
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("its name has upper-case letters");
    }
    if !repository.split('/').all(is_component) {
        return Err(
            "its name has something beside lower-case letters, digits and single `.`, `_`, `__` or `-` between them",
        );
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    is_word(*first)
        && is_word(*last)
        && bytes
            .split(|byte| is_word(*byte))
            .all(|separator| match separator {
                b"" | b"." | b"_" | b"__" => true,
                dashes => dashes.iter().all(|byte| *byte == b'-'),
            })
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match tag.as_bytes() {
        [] => Err("its tag is empty"),
        tag if tag.len() > TAG_LIMIT => Err("its tag is longer than 128 characters"),
        [first, rest @ ..]
            if word(*first)
                && rest
                    .iter()
                    .all(|byte| word(*byte) || matches!(byte, b'.' | b'-')) =>
        {
            Ok(())
        }
        _ => Err("its tag has something beside letters, digits, `_`, `.` and `-`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>()
            .map_or_else(|error| error.to_string(), |reference| reference.to_string())
    }

    #[test]
    fn defaults_are_dockers() {
        for (written, meant) in [
            ("python", "docker.io/library/python"),
            ("python:3.12-slim", "docker.io/library/python:3.12-slim"),
            ("acme/app", "docker.io/acme/app"),
            ("index.docker.io/python", "docker.io/library/python"),
            ("docker.io/acme/app", "docker.io/acme/app"),
            ("localhost/app:1", "localhost/app:1"),
            (
                "localhost:5000/a/b/c:X_1.y-z",
                "localhost:5000/a/b/c:X_1.y-z",
            ),
            ("ghcr.io/acme/app", "ghcr.io/acme/app"),
            ("[::1]:5000/app", "[::1]:5000/app"),
            ("Registry/app", "Registry/app"),
            ("a__b/c--d.e_f", "docker.io/a__b/c--d.e_f"),
        ] {
            assert_eq!(full(written), meant);
            assert_eq!(full(meant), meant);
        }
    }

    #[test]
    fn tag_and_digest_may_stand_together() {
        let digest = Digest::of("x");
        let reference: Reference = format!("r.example:5000/app:1@{digest}").parse().unwrap();
        assert_eq!(reference.registry, "r.example:5000");
        assert_eq!(reference.repository, "app");
        assert_eq!(reference.tag.as_deref(), Some("1"));
        assert_eq!(reference.digest, Some(digest));
        assert_eq!(reference.identifier(), digest.to_string());
        assert_eq!(full(&reference.to_string()), reference.to_string());
    }

    #[test]
    fn the_short_form_reads_as_the_same_reference() {
        for (written, short) in [
            ("docker.io/library/python:3", "python:3"),
            ("docker.io/acme/app", "acme/app"),
            ("docker.io/library/a/b", "library/a/b"),
            ("ghcr.io/acme/app", "ghcr.io/acme/app"),
        ] {
            let reference: Reference = written.parse().unwrap();
            assert_eq!(reference.familiar(), short);
            assert_eq!(short.parse(), Ok(reference));
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_reason() {
        for (wrong, reason) in [
            ("", "empty"),
            ("https://ghcr.io/app", "scheme"),
            ("acme/App", "upper-case"),
            ("app:", "tag is empty"),
            ("app:-x", "tag has"),
            ("app@sha256:12", "digest"),
            ("app:1@md5:00", "digest"),
            ("-app", "beside"),
            ("a//b", "beside"),
            ("a___b", "beside"),
            ("../etc", "host name"),
            ("r.example:99999/app", "port"),
            ("r.example:/app", "port"),
            ("[::1/app", "no `]`"),
            ("[zz]:1/app", "IPv6"),
            ("r.example/", "no repository"),
            (&"a".repeat(256), "255"),
            // With the namespace that it has by default.
            (&"a".repeat(250), "255"),
            (&format!("a:{}", "t".repeat(129)), "128"),
            (&"ab".repeat(32), "bare image id"),
        ] {
            let error = full(wrong);
            assert!(error.contains(reason), "{wrong}: {error}");
        }
    }
}
