//! What people write.

use std::collections::BTreeMap;

use imagespec_core::ignore::Ignore;
use imagespec_core::platform::Platform;
use imagespec_core::spec::ImageSpec;
use imagespec_core::validate::{format_tag, registry_name, validate};
use imagespec_flyte::{Around, Project, read};

/// A spec, and the texts in one.
pub fn spec(input: &[u8]) {
    if let Ok(spec) = serde_json::from_slice::<ImageSpec>(input) {
        let _ = validate(&spec);
    }
    let text = String::from_utf8_lossy(input);
    let _ = registry_name(&text);
    let _ = format_tag(&text, "tag");
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse().as_ref(), Ok(&platform));
    }
}

/// Python code that declares images.
pub fn code(input: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    fs_err::write(folder.path().join("app.py"), input).expect("a file");
    let around = Around {
        folder: folder.path(),
        variables: &BTreeMap::new(),
        interpreter: None,
    };
    let project = Project::of(folder.path(), "app.py").expect("a project");
    if let Err(error) = read(&[project], around) {
        assert_ne!(error.message, "the reader of Python code broke");
    }
}

/// Ignore files.
pub fn ignore(input: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    for name in [".gitignore", ".dockerignore"] {
        fs_err::write(folder.path().join(name), input).expect("a file");
    }
    fs_err::create_dir(folder.path().join(".git")).expect("a folder");
    // Rules that cannot be read are an error.
    let Ok(mut ignore) = Ignore::load(folder.path()) else {
        return;
    };
    ignore.enter("");
    for path in [
        "a",
        "a/b",
        "src/main.py",
        "a/b/c.pyc",
        &"d/".repeat(100),
        &"a".repeat(200),
    ] {
        let path = path.trim_end_matches('/');
        let _ = (ignore.verdict(path, false), ignore.verdict(path, true));
    }
}
