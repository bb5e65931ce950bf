//! Whether single fields of a spec say something sensible, before anything is read.

use crate::error::BuildError;
use crate::spec::{ImageSpec, SourceCopyMode};

/// Checks every field that can be judged by itself or beside others. The first fault is the error.
pub fn validate(spec: &ImageSpec) -> Result<(), BuildError> {
    if let Some(registry) = &spec.registry {
        registry_name(registry)?;
    }
    if let Some(name) = &spec.name {
        image_name(name)?;
    }
    if let Some(version) = &spec.python_version {
        python_version(version)?;
    }
    env(spec)?;
    command_lines(spec)?;
    copies(spec)?;
    python(spec)?;
    if let Some(format) = &spec.tag_format {
        format_tag(format, "0")?;
    }
    for (source, target) in spec.pip_secret_mounts.iter().flatten() {
        let rooted = target.starts_with('/') && !target.split('/').any(|part| part == "..");
        if source.is_empty() || !rooted || target.contains('\0') {
            let message = format!(
                "expected a file and an absolute path it is mounted at: `{source}`, `{target}`"
            );
            return Err(BuildError::input(message).field("pip_secret_mounts"));
        }
    }
    Ok(())
}

/// Refuses a registry that flytekit refuses: it accepts
/// `^(localhost:\d{1,5}|([a-z\d\._-]+)(:\d{1,5})?)(/[\w\.-]+)*$`, and the empty string for none.
pub fn registry_name(registry: &str) -> Result<(), BuildError> {
    let lower = registry.to_lowercase();
    let mut parts = lower.split('/');
    let host = parts.next().unwrap_or_default();
    let (host, port) = host
        .split_once(':')
        .map_or((host, None), |(host, port)| (host, Some(port)));
    let fine = !host.is_empty()
        && host
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
        && port.is_none_or(|port| {
            (1..=5).contains(&port.len()) && port.chars().all(|c| c.is_ascii_digit())
        })
        && parts.all(|part| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_alphanumeric() || "_.-".contains(c))
        });
    if fine || registry.is_empty() {
        return Ok(());
    }
    let error = BuildError::input(format!("invalid container registry name: `{registry}`"))
        .field("registry");
    Err(match registry.split_once("://") {
        Some((_, rest)) => error.hint(format!(
            "leave out the scheme: `{}`",
            rest.trim_end_matches('/')
        )),
        None => error
            .hint("expected a host, perhaps a port, and perhaps a path, such as `ghcr.io/acme`"),
    })
}

/// Refuses a name that no repository can have: lower-case components of letters and digits, joined by `.`, `_`,
/// `__` or dashes (distribution reference grammar, "path-component").
pub(crate) fn image_name(name: &str) -> Result<(), BuildError> {
    let component = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        edge(part.chars().next())
            && edge(part.chars().next_back())
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
            && !["..", "___", "._", "_.", ".-", "-.", "_-", "-_"]
                .iter()
                .any(|pair| part.contains(pair))
    };
    if name.split('/').all(component) {
        return Ok(());
    }
    Err(BuildError::input(format!("invalid image name: `{name}`"))
        .field("name")
        .hint("expected letters and digits, joined by `.`, `_` or `-`, in parts separated by `/`; the tag is computed"))
}

fn python_version(version: &str) -> Result<(), BuildError> {
    let numbers = version
        .split('.')
        .all(|part| !part.is_empty() && part.len() < 4 && part.chars().all(|c| c.is_ascii_digit()));
    if numbers && version.starts_with("3.") && version.split('.').count() <= 3 {
        return Ok(());
    }
    Err(BuildError::input(format!(
        "expected a version of Python such as `3.11`: `{version}`"
    ))
    .field("python_version"))
}

fn env(spec: &ImageSpec) -> Result<(), BuildError> {
    for (name, value) in spec.env.iter().flatten() {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(BuildError::input(format!("expected a variable's name and value, without `=` in the name and without NUL: `{name}`")).field("env"));
        }
    }
    Ok(())
}

/// Programs cannot be given NUL.
fn command_lines(spec: &ImageSpec) -> Result<(), BuildError> {
    let lists = [
        ("entrypoint", &spec.entrypoint),
        ("commands", &spec.commands),
    ];
    for (field, lines) in lists {
        if let Some(line) = lines.iter().flatten().find(|line| line.contains('\0')) {
            let message = format!("`{field}` holds a NUL: `{}`", line.escape_debug());
            return Err(BuildError::input(message).field(field));
        }
    }
    Ok(())
}

fn copies(spec: &ImageSpec) -> Result<(), BuildError> {
    for path in spec.copy.iter().flatten() {
        if path.trim().is_empty() || path.contains('\0') {
            let message = format!("expected a path in `copy`: `{}`", path.escape_debug());
            return Err(BuildError::input(message).field("copy"));
        }
        if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            let message =
                format!("absolute paths or paths with `..` are not allowed in `copy`: `{path}`");
            return Err(BuildError::input(message)
                .field("copy")
                .hint("paths start at the folder that `copy` is relative to; `-C` changes it"));
        }
    }
    let mode = spec.source_copy_mode;
    if mode == Some(SourceCopyMode::All) && spec.source_root.is_none() {
        let message = "field `source_root` must be set when `source_copy_mode` is set";
        return Err(BuildError::input(message).field("source_root"));
    }
    Ok(())
}

fn python(spec: &ImageSpec) -> Result<(), BuildError> {
    let locked = spec.requirements.as_deref().and_then(|path| {
        let name = path.rsplit('/').next().unwrap_or(path);
        matches!(name, "uv.lock" | "poetry.lock").then_some(name)
    });
    if let (Some(lock), true) = (locked, spec.packages.is_some()) {
        let message = format!("support for {lock} files and packages is mutually exclusive");
        return Err(BuildError::input(message)
            .field("packages")
            .hint("add the packages to the project and lock it again"));
    }
    let conda = [
        ("conda_packages", &spec.conda_packages),
        ("conda_channels", &spec.conda_channels),
    ];
    if let (Some(_), Some((field, _))) = (
        &spec.python_exec,
        conda.into_iter().find(|(_, value)| value.is_some()),
    ) {
        return Err(
            BuildError::input(format!("`{field}` is not supported with `python_exec`"))
                .field(field),
        );
    }
    for channel in spec.conda_channels.iter().flatten() {
        if channel.trim().is_empty() || channel.contains(['\n', '\r', '\0']) {
            let message = format!("expected the name or the URL of a Conda channel: `{channel}`");
            return Err(BuildError::input(message).field("conda_channels"));
        }
        if channel.contains("://") && channel.contains("/t/") {
            return Err(
                BuildError::input("the URL of a Conda channel has a token, which is a secret")
                    .field("conda_channels")
                    .hint("keep it in `custom_channels` or `channel_alias` of `.condarc`, and name the channel here"),
            );
        }
    }
    let lists = [
        ("packages", &spec.packages),
        ("apt_packages", &spec.apt_packages),
        ("conda_packages", &spec.conda_packages),
        ("runtime_packages", &spec.runtime_packages),
    ];
    for (field, packages) in lists {
        for package in packages.iter().flatten() {
            let blank = package.trim().is_empty() || package.contains(['\n', '\r', '\0']);
            if blank || package.starts_with('-') {
                let message = format!("expected the name of a package: `{package}`");
                return Err(BuildError::input(message).field(field));
            }
        }
    }
    Ok(())
}

/// Puts a tag into the pattern of `tag_format`, in which `{spec_hash}` stands for it and `{{` for a brace.
pub fn format_tag(format: &str, tag: &str) -> Result<String, BuildError> {
    let wrong = |what: &str| BuildError::input(format!("{what}: `{format}`")).field("tag_format");
    let mut out = String::new();
    let mut rest = format;
    let mut used = false;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{spec_hash}") {
            out.push_str(tag);
            (rest, used) = (after, true);
        } else if rest.starts_with("{{") || rest.starts_with("}}") {
            out.push_str(&rest[..1]);
            rest = &rest[2..];
        } else {
            return Err(wrong(
                "`tag_format` may only hold the placeholder `{spec_hash}`",
            ));
        }
    }
    out.push_str(rest);
    let plain = out.len() <= 128
        && out
            .chars()
            .enumerate()
            .all(|(at, c)| c.is_ascii_alphanumeric() || c == '_' || (at > 0 && ".-".contains(c)));
    match (used, plain) {
        (true, true) => Ok(out),
        (false, _) => Err(
            wrong("`tag_format` must hold the placeholder `{spec_hash}`")
                .hint("otherwise different images would have one name"),
        ),
        (_, false) => Err(wrong("`tag_format` gives a tag that no registry accepts")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_flytekits() {
        for good in [
            "localhost:30000",
            "localhost:99999",
            "ghcr.io",
            "ghcr.io/u/r",
            "",
            "a.b-c_d:5000/x.y/z",
            "GHCR.io/Acme",
        ] {
            assert!(registry_name(good).is_ok(), "{good}");
        }
        for bad in [
            "https://ghcr.io/x",
            "a b",
            "ghcr.io/u/",
            "host:1/a:tag",
            "[::1]:5000/x",
            "host:123456",
        ] {
            assert!(registry_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tag_format_needs_its_one_placeholder() {
        assert_eq!(
            format_tag("{spec_hash}-dev", "abc").as_deref(),
            Ok("abc-dev")
        );
        for bad in [
            "dev",
            "{other}",
            "{spec_hash",
            "-{spec_hash}",
            "{spec_hash}/x",
            "{{spec_hash}}",
        ] {
            assert!(format_tag(bad, "abc").is_err(), "{bad}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn every_fault_names_its_field() {
        let strings = |values: &[&str]| {
            Some(
                values
                    .iter()
                    .map(|value| (*value).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        let spec = ImageSpec::default;
        for (field, spec) in [
            (
                "registry",
                ImageSpec {
                    registry: Some("https://x".into()),
                    ..spec()
                },
            ),
            (
                "name",
                ImageSpec {
                    name: Some("a:b".into()),
                    ..spec()
                },
            ),
            (
                "python_version",
                ImageSpec {
                    python_version: Some("2.7".into()),
                    ..spec()
                },
            ),
            (
                "env",
                ImageSpec {
                    env: Some([("A=B".to_owned(), String::new())].into()),
                    ..spec()
                },
            ),
            (
                "copy",
                ImageSpec {
                    copy: strings(&["../x"]),
                    ..spec()
                },
            ),
            (
                "copy",
                ImageSpec {
                    copy: strings(&["/x"]),
                    ..spec()
                },
            ),
            (
                "source_root",
                ImageSpec {
                    source_copy_mode: Some(SourceCopyMode::All),
                    ..spec()
                },
            ),
            (
                "packages",
                ImageSpec {
                    requirements: Some("a/uv.lock".into()),
                    packages: strings(&[]),
                    ..spec()
                },
            ),
            (
                "packages",
                ImageSpec {
                    packages: strings(&["--index-url=x"]),
                    ..spec()
                },
            ),
            (
                "conda_channels",
                ImageSpec {
                    python_exec: Some("/p".into()),
                    conda_channels: strings(&[]),
                    ..spec()
                },
            ),
            (
                "tag_format",
                ImageSpec {
                    tag_format: Some("x".into()),
                    ..spec()
                },
            ),
            (
                "pip_secret_mounts",
                ImageSpec {
                    pip_secret_mounts: Some(vec![("a".into(), "b".into())]),
                    ..spec()
                },
            ),
        ] {
            assert_eq!(
                validate(&spec).expect_err(field).field.as_deref(),
                Some(field)
            );
        }
        assert_eq!(validate(&spec()), Ok(()));
    }
}
