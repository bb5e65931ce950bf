//! Operating system and architecture, as container tools write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A platform an image is built for, written `linux/amd64` or `linux/arm64/v8`; normalised so that equal
/// platforms compare equal (`linux/arm64/v8` is `linux/arm64`, `x86_64` is `amd64`), as containerd's
/// `platforms` package does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// Always `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …, as Go names them.
    pub architecture: String,
    /// The variant of the architecture, where it has several: `v7` of `arm`.
    pub variant: Option<String>,
}

/// Why a text is not a [`Platform`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a platform such as `linux/amd64` or `linux/arm64`: `{0}`")]
pub struct PlatformError(String);

impl Platform {
    /// `linux/amd64`.
    pub fn amd64() -> Self {
        Self {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: None,
        }
    }

    /// The platform whose programs this machine runs: its architecture, under Linux.
    pub fn host() -> Self {
        let architecture = normal_architecture(std::env::consts::ARCH).0;
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: None,
        }
    }

    /// Whether this machine runs the platform's programs.
    pub fn is_host(&self) -> bool {
        cfg!(target_os = "linux") && *self == Self::host()
    }
}

fn normal_architecture(name: &str) -> (&str, Option<&'static str>) {
    match name {
        "x86_64" | "x86-64" | "amd64" => ("amd64", None),
        "aarch64" | "arm64" => ("arm64", None),
        "armhf" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v6")),
        "i386" | "i686" | "x86" => ("386", None),
        "powerpc64le" => ("ppc64le", None),
        other => (other, None),
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || PlatformError(text.to_owned());
        let lower = text.trim().to_ascii_lowercase();
        let mut parts = lower.split('/');
        let (os, architecture, variant, None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(error());
        };
        let (Some("linux"), Some(architecture)) = (os, architecture) else {
            return Err(error());
        };
        let word = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        };
        if !word(architecture) || !variant.is_none_or(word) {
            return Err(error());
        }
        let (architecture, implied) = normal_architecture(architecture);
        let variant = match (architecture, variant.or(implied)) {
            ("arm64", Some("v8" | "8")) | ("amd64", Some("v1")) => None,
            ("arm", None) => Some("v7"),
            (_, variant) => variant,
        };
        Ok(Self {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.map(Into::into),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .iter()
            .try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl Serialize for Platform {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_platforms_are_written_alike() {
        for (written, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
        ] {
            assert_eq!(
                written
                    .parse::<Platform>()
                    .map(|platform| platform.to_string()),
                Ok(normal.into())
            );
        }
        for wrong in [
            "",
            "amd64",
            "linux/",
            "windows/amd64",
            "linux/amd64/v1/x",
            "linux/a b",
        ] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
    }
}
