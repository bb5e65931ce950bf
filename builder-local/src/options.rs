//! Options of the builder.

use std::path::Path;

use imagespec_core::error::BuildError;
use imagespec_debian::ArchiveOptions;
use imagespec_oci::engine::Endpoint;
use serde_json::{Map, Value};

use crate::backend::ENTRY;
use crate::caches::{self, Cache};

/// The names of the options, each with what it means.
pub(crate) const OPTIONS: &[(&str, &str)] = &[
    (
        "buildkit_host",
        "a BuildKit to build with instead of the engine's: `tcp://HOST:PORT` or `unix:///PATH`",
    ),
    (
        "buildkit_tlsdir",
        "the folder with `ca.pem`, `cert.pem` and `key.pem` for a `buildkit_host` that wants to know who asks",
    ),
    (
        "network",
        "the network of what runs in the build: `default`, `host` or `none`",
    ),
    (
        "cache_from",
        "where layers may come from: `type=registry,ref=NAME`, or just NAME, or `type=local,src=FOLDER`; several as a list",
    ),
    (
        "cache_to",
        "where layers go for others: `type=inline`, or `type=registry,ref=NAME,mode=max` or `type=local,dest=FOLDER,mode=max` where whoever builds can",
    ),
    ArchiveOptions::OPTIONS[0],
    ArchiveOptions::OPTIONS[1],
];

/// What the options say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// A `BuildKit` of its own.
    pub(crate) buildkit: Option<Endpoint>,
    /// The network that is forced, as `BuildKit` names it.
    pub(crate) network: Option<&'static str>,
    pub(crate) cache_from: Vec<Cache>,
    pub(crate) cache_to: Vec<Cache>,
    pub(crate) archive: ArchiveOptions,
}

impl Options {
    pub(crate) fn read(options: &Map<String, Value>) -> Result<Self, BuildError> {
        let mut read = Self::default();
        let text = |name: &str| options.get(name).and_then(Value::as_str);
        for (name, value) in options {
            let wrong = |expected: &str| ENTRY.wrong_option(name, expected, value);
            match name.as_str() {
                "buildkit_host" => {
                    let address = value.as_str().ok_or_else(|| wrong("an address"))?;
                    let folder = text("buildkit_tlsdir").map(Path::new);
                    let source = format!("option `{name}`");
                    let found = Endpoint::parse(address, folder, &source).ok();
                    let found = found.filter(|found| !found.is_over_ssh());
                    let expected = "an address: `tcp://HOST:PORT` or `unix:///PATH`";
                    read.buildkit = Some(found.ok_or_else(|| wrong(expected))?);
                }
                "buildkit_tlsdir" => {
                    let folder = value.as_str().map(Path::new);
                    if !folder.is_some_and(Path::is_absolute) {
                        return Err(wrong("the path of a folder, from the root"));
                    }
                    if !text("buildkit_host").is_some_and(|host| host.starts_with("tcp:")) {
                        return Err(wrong(
                            "a `buildkit_host` beside it that is reached over TCP",
                        ));
                    }
                }
                "network" => {
                    read.network = match value.as_str() {
                        Some("default") => None,
                        Some("host") => Some("host"),
                        Some("none") => Some("none"),
                        _ => return Err(wrong("`default`, `host` or `none`")),
                    };
                }
                "cache_from" => read.cache_from = entries(value, "src").map_err(wrong)?,
                "cache_to" => {
                    read.cache_to = entries(value, "dest").map_err(wrong)?;
                    let is_written = |cache: &Cache| match cache {
                        Cache::Theirs(entry) => {
                            matches!(entry.r#type.as_str(), "inline" | "registry")
                        }
                        Cache::Folder(_) => true,
                    };
                    if !read.cache_to.iter().all(is_written) {
                        return Err(wrong("caches of type `inline`, `registry` or `local`"));
                    }
                }
                _ => {
                    let text = value.as_str().ok_or_else(|| wrong("a text"));
                    match read.archive.set(name, text.as_deref().unwrap_or_default()) {
                        Some(set) => {
                            text?;
                            set.map_err(wrong)?;
                        }
                        None => return Err(ENTRY.unknown_option(name)),
                    }
                }
            }
        }
        Ok(read)
    }
}

/// Caches of an option: one text, or a list of them.
fn entries(value: &Value, folder: &str) -> Result<Vec<Cache>, &'static str> {
    let texts = match value {
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        value => vec![value.as_str()],
    };
    let read = |text: Option<&str>| caches::read(text.unwrap_or_default(), folder);
    texts.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: &Value) -> Result<Options, BuildError> {
        Options::read(options.as_object().expect("options"))
    }

    #[test]
    fn options_are_read_and_others_refused() {
        let options = json!({
            "network": "host",
            "buildkit_host": "tcp://127.0.0.1:1234",
            "cache_from": ["registry.example/cache", "type=registry,ref=registry.example/other"],
            "cache_to": "type=inline",
        });
        let options = read(&options).expect("options");
        assert_eq!(options.network, Some("host"));
        let address = options.buildkit.as_ref().map(Endpoint::address);
        assert_eq!(address.as_deref(), Some("tcp://127.0.0.1:1234"));
        let named = ["registry.example/cache", "registry.example/other"];
        let named = named.map(|name| caches::read(name, "src").expect("a cache"));
        assert_eq!(options.cache_from, named);
        let inline = caches::read("type=inline", "dest").expect("a cache");
        assert_eq!(options.cache_to, [inline]);
        for (wrong, said) in [
            (
                json!({"network": "bridge"}),
                "option `network` of builder `default`",
            ),
            (json!({"cache_from": [1]}), "expected texts such as"),
            (
                json!({"cache_to": "type=gha"}),
                "`inline`, `registry` or `local`",
            ),
            (
                json!({"cache_to": "type=local,dest=x"}),
                "`type=local,dest=FOLDER`, with the folder's path from the root",
            ),
            (
                json!({"buildkit_host": "ssh://me@there"}),
                "`tcp://HOST:PORT` or `unix:///PATH`",
            ),
            (
                json!({"buildkit_host": "unix:///x", "buildkit_tlsdir": "/certs"}),
                "reached over TCP",
            ),
            (
                json!({"buildkit_host": "tcp://x:1", "buildkit_tlsdir": "certs"}),
                "from the root",
            ),
            (json!({"debian_mirror": 1}), "expected a text"),
            (json!({"networks": "host"}), "has no option: `networks`"),
        ] {
            let error = read(&wrong).expect_err("wrong options");
            assert!(error.message.contains(said), "{}", error.message);
            assert_eq!(error.field.as_deref(), Some("builder_options"));
        }
    }
}
