//! The form of an image: what is asked for by flags and is neither in the plan nor, so, in the tag.

use std::collections::BTreeMap;

use imagespec_core::context::{BuildSettings, Compression};
use imagespec_core::digest::Digest;
use imagespec_oci::image::Image;

/// Says how layers are compressed, in the manifest of an image where that is not the default.
const COMPRESSION: &str = "imagespec.compression";
/// Says that there is no bytecode, in the manifest of an image that was built so.
const BYTECODE: &str = "imagespec.bytecode";

/// Says which image an image starts from (image specification, annotations).
const BASE: &str = "org.opencontainers.image.base.digest";

/// What the manifest of an image says of its base, if that is one of a registry.
pub(crate) fn base_annotation(base: &Digest) -> (String, String) {
    (BASE.to_owned(), base.to_string())
}

/// Whether an image starts from this one.
pub(crate) fn starts_from(image: &Image, base: &Digest) -> bool {
    image.annotations.get(BASE) == Some(&base.to_string())
}

/// What the manifest of an image says of its form: nothing for the default.
pub(crate) fn annotations(settings: &BuildSettings) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    let compression = settings.compression();
    if compression != Compression::default() {
        annotations.insert(COMPRESSION.to_owned(), compression.name().to_owned());
    }
    if !settings.bytecode() {
        annotations.insert(BYTECODE.to_owned(), "none".to_owned());
    }
    annotations
}

/// Whether an image is what the settings ask for.
pub(crate) fn fits(image: &Image, settings: &BuildSettings) -> bool {
    let wanted = annotations(settings);
    let same = |key: &str| image.annotations.get(key) == wanted.get(key);
    (settings.compression.is_none() || same(COMPRESSION))
        && (settings.bytecode.is_none() || same(BYTECODE))
        && settings.has_labels(&image.runtime.labels)
}

#[cfg(test)]
mod tests {
    use imagespec_core::platform::Platform;
    use imagespec_oci::image::Runtime;

    use super::*;

    fn image(settings: &BuildSettings) -> Image {
        Image {
            platform: Platform::amd64(),
            runtime: Runtime {
                labels: settings.labels.clone(),
                ..Runtime::default()
            },
            layers: Vec::new(),
            annotations: annotations(settings),
        }
    }

    #[test]
    fn an_image_fits_what_it_was_built_for_and_whoever_asks_for_nothing() {
        let plain = BuildSettings::default();
        let gzip = BuildSettings {
            compression: Some(Compression::Gzip),
            bytecode: Some(true),
            ..BuildSettings::default()
        };
        let zstd = BuildSettings {
            compression: Some(Compression::Zstd),
            ..BuildSettings::default()
        };
        let bare = BuildSettings {
            bytecode: Some(false),
            ..BuildSettings::default()
        };
        let labelled = BuildSettings {
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..BuildSettings::default()
        };
        let all = [&plain, &gzip, &zstd, &bare, &labelled];
        for (at, made) in all.iter().enumerate() {
            assert!(fits(&image(made), made) && fits(&image(made), &plain));
            for (other, asked) in all
                .iter()
                .enumerate()
                .skip(1)
                .filter(|(other, _)| *other != at)
            {
                // The default form is what who asked for nothing, or for a label only, got.
                let expected = matches!((at, other), (0 | 4, 1));
                assert_eq!(fits(&image(made), asked), expected, "{at} {other}");
            }
        }
    }
}
