//! Caches beyond the engine's own, in the form that Docker's command takes them.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::CacheOptionsEntry;

/// A cache of a text: `type=registry,ref=NAME`, or just the name of an image.
pub(crate) fn entry(text: &str) -> Option<CacheOptionsEntry> {
    if text.is_empty() {
        return None;
    }
    if !text.contains('=') {
        return Some(CacheOptionsEntry {
            r#type: "registry".to_owned(),
            attrs: HashMap::from([("ref".to_owned(), text.to_owned())]),
        });
    }
    let mut attrs = HashMap::new();
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=')?;
        attrs.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    let r#type = attrs.remove("type")?;
    Some(CacheOptionsEntry { r#type, attrs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_written_as_for_dockers_command() {
        let named = entry("registry.example/cache:1").expect("a cache");
        assert_eq!(named.r#type, "registry");
        assert_eq!(named.attrs["ref"], "registry.example/cache:1");
        let full = entry("type=registry, ref=a/b,mode=max").expect("a cache");
        assert_eq!(full.attrs["mode"], "max");
        assert_eq!(full.attrs["ref"], "a/b");
        assert_eq!(entry("type=inline").expect("a cache").attrs.len(), 0);
        for wrong in ["", "ref=a", "type=registry,ref"] {
            assert!(entry(wrong).is_none(), "{wrong}");
        }
    }
}
