//! Settings of registries in a file that a spec names: `registry_config`, in envd's format.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::BuildError;
use crate::host::RegistrySettings;

/// The field that names the file.
const FIELD: &str = "registry_config";
/// The largest file, in bytes.
const LIMIT: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    registry: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    ca: PathBuf,
    #[serde(default)]
    cert: PathBuf,
    #[serde(default)]
    key: PathBuf,
    /// Not to verify certificates.
    #[serde(default)]
    insecure: bool,
    /// Plain HTTP.
    #[serde(default)]
    http: bool,
}

/// Reads the file. Paths in it are relative to its folder.
pub fn read(path: &Path) -> Result<BTreeMap<String, RegistrySettings>, BuildError> {
    let wrong = |message: String| BuildError::input(message).field(FIELD);
    let mut text = String::new();
    let file = fs_err::File::open(path);
    let read = file.and_then(|file| file.take(LIMIT).read_to_string(&mut text));
    read.map_err(|error| {
        wrong("cannot read the settings of registries".to_owned()).caused_by(&error)
    })?;
    let file: File = serde_json::from_str(&text).map_err(|error| {
        wrong(format!("not settings of registries: `{}`", path.display()))
            .caused_by(&error)
            .hint(r#"expected `{"registry": [{"name": "HOST:PORT", "ca": "FILE.pem", "http": false}]}`"#)
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut registries = BTreeMap::new();
    for entry in file.registry {
        let name = entry.name;
        if entry.insecure {
            let message = format!("certificates are always verified: `insecure` of `{name}`");
            return Err(wrong(message).hint(
                "name the authority that signed its certificate in `ca`, or say `http` where it has none",
            ));
        }
        let named = |file: PathBuf| Some(folder.join(&file)).filter(|_| file != Path::new(""));
        let settings = RegistrySettings {
            insecure: entry.http,
            ca: named(entry.ca),
            cert: named(entry.cert),
            key: named(entry.key),
        };
        if registries.insert(name.clone(), settings).is_some() {
            return Err(wrong(format!("a registry is there twice: `{name}`")));
        }
    }
    Ok(registries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_envd_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registries.json");
        let read = |text: &str| {
            fs_err::write(&path, text).expect("a file");
            read(&path)
        };
        let text = r#"{"registry": [
            {"name": "plain.example:5000", "http": true},
            {"name": "r.example", "ca": "ca.pem", "cert": "/c.pem", "key": "", "insecure": false}
        ]}"#;
        let registries = read(text).expect("settings");
        assert!(registries["plain.example:5000"].insecure);
        let signed = RegistrySettings {
            ca: Some(folder.path().join("ca.pem")),
            cert: Some("/c.pem".into()),
            ..RegistrySettings::default()
        };
        assert_eq!(registries["r.example"], signed);
        assert!(read("{}").expect("nothing").is_empty());
        for (text, said) in [
            ("7", "not settings of registries"),
            (
                r#"{"registry": [{"host": "x"}]}"#,
                "not settings of registries",
            ),
            (
                r#"{"registry": [{"name": "x", "insecure": true}]}"#,
                "`insecure` of `x`",
            ),
            (
                r#"{"registry": [{"name": "x"}, {"name": "x"}]}"#,
                "twice: `x`",
            ),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.message.contains(said), "{}", error.message);
            assert_eq!(error.field.as_deref(), Some(FIELD));
        }
        fs_err::remove_file(&path).expect("a file");
        assert!(super::read(&path).is_err());
    }
}
