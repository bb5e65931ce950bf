//! Options of the builder.

use bollard_buildkit_proto::moby::buildkit::v1::CacheOptionsEntry;
use imagespec_core::error::BuildError;
use imagespec_debian::ArchiveOptions;
use serde_json::{Map, Value};

use crate::backend::ENTRY;
use crate::caches;

/// The names of the options, each with what it means.
pub(crate) const OPTIONS: &[(&str, &str)] = &[
    (
        "network",
        "the network of what runs in the build: `default`, `host` or `none`",
    ),
    (
        "cache_from",
        "where layers may come from: `type=registry,ref=NAME`, or just NAME; several as a list",
    ),
    (
        "cache_to",
        "where layers go for others: `type=inline`, or `type=registry,ref=NAME,mode=max` where the engine can",
    ),
    ArchiveOptions::OPTIONS[0],
    ArchiveOptions::OPTIONS[1],
];

/// What the options say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// The network that is forced, as `BuildKit` names it.
    pub(crate) network: Option<&'static str>,
    pub(crate) cache_from: Vec<CacheOptionsEntry>,
    pub(crate) cache_to: Vec<CacheOptionsEntry>,
    pub(crate) archive: ArchiveOptions,
}

impl Options {
    pub(crate) fn read(options: &Map<String, Value>) -> Result<Self, BuildError> {
        let mut read = Self::default();
        for (name, value) in options {
            let wrong = |expected: &str| ENTRY.wrong_option(name, expected, value);
            match name.as_str() {
                "network" => {
                    read.network = match value.as_str() {
                        Some("default") => None,
                        Some("host") => Some("host"),
                        Some("none") => Some("none"),
                        _ => return Err(wrong("`default`, `host` or `none`")),
                    };
                }
                "cache_from" => read.cache_from = entries(value).map_err(wrong)?,
                "cache_to" => {
                    read.cache_to = entries(value).map_err(wrong)?;
                    let written = |entry: &CacheOptionsEntry| {
                        matches!(entry.r#type.as_str(), "inline" | "registry")
                    };
                    if !read.cache_to.iter().all(written) {
                        return Err(wrong("caches of type `inline` or `registry`"));
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
fn entries(value: &Value) -> Result<Vec<CacheOptionsEntry>, &'static str> {
    const EXPECTED: &str = "texts such as `type=registry,ref=NAME`";
    let texts = match value {
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        value => vec![value.as_str()],
    };
    let entry = |text: Option<&str>| text.and_then(caches::entry).ok_or(EXPECTED);
    texts.into_iter().map(entry).collect()
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
            "cache_from": ["registry.example/cache", "type=registry,ref=registry.example/other"],
            "cache_to": "type=inline",
        });
        let options = read(&options).expect("options");
        assert_eq!(options.network, Some("host"));
        let names = options.cache_from.iter().map(|entry| &entry.attrs["ref"]);
        let names: Vec<_> = names.collect();
        assert_eq!(names, ["registry.example/cache", "registry.example/other"]);
        assert_eq!(options.cache_to[0].r#type, "inline");
        for (wrong, said) in [
            (
                json!({"network": "bridge"}),
                "option `network` of builder `default`",
            ),
            (json!({"cache_from": [1]}), "expected texts such as"),
            (
                json!({"cache_to": "type=local,dest=x"}),
                "`inline` or `registry`",
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
