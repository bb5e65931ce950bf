//! What is said of a spec that is wrong, word by word.

use imagespec_core::deployment::Deployment;
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::resolve::{ResolveContext, resolve};
use serde_json::{Value, json};

use crate::support::{context, folder, resolved, spec, write};

fn refusal(json: Value) -> BuildError {
    let folder = folder(&[
        ("uv.lock", ""),
        ("p/pyproject.toml", ""),
        ("p/uv.lock", ""),
        ("file", ""),
        ("loop.txt", "-r again.txt\n"),
        ("again.txt", "-r ./loop.txt\n"),
        ("outside.txt", "-r ../x.txt\n"),
        ("absent.txt", "-r none.txt\n"),
    ]);
    resolved(folder.path(), &spec(json)).expect_err("a refusal")
}

/// Field, spec, message.
#[expect(clippy::too_many_lines, reason = "a table")]
fn refusals() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("name", json!({"name": "a b"}), "invalid image name: `a b`"),
        (
            "registry",
            json!({"registry": "https://ghcr.io/x"}),
            "invalid container registry name: `https://ghcr.io/x`",
        ),
        (
            "python_version",
            json!({"python_version": "2.7"}),
            "expected a version of Python such as `3.11`: `2.7`",
        ),
        (
            "env",
            json!({"env": {"": "x"}}),
            "expected a variable's name and value, without `=` in the name and without NUL: ``",
        ),
        (
            "packages",
            json!({"packages": [" "]}),
            "expected the name of a package: ` `",
        ),
        (
            "apt_packages",
            json!({"apt_packages": ["-y"]}),
            "expected the name of a package: `-y`",
        ),
        (
            "conda_packages",
            json!({"conda_packages": ["--x"]}),
            "expected the name of a package: `--x`",
        ),
        (
            "runtime_packages",
            json!({"runtime_packages": [""]}),
            "expected the name of a package: ``",
        ),
        (
            "entrypoint",
            json!({"entrypoint": ["a\u{0}"]}),
            "`entrypoint` holds a NUL: `a\\0`",
        ),
        (
            "commands",
            json!({"commands": ["\u{0}"]}),
            "`commands` holds a NUL: `\\0`",
        ),
        (
            "platform",
            json!({"platform": "linux/amd64,"}),
            "expected a platform such as `linux/amd64` or `linux/arm64`: ``",
        ),
        (
            "base_image",
            json!({"base_image": " "}),
            "expected the reference of an image: ` `",
        ),
        (
            "tag_format",
            json!({"tag_format": "v1"}),
            "`tag_format` must hold the placeholder `{spec_hash}`: `v1`",
        ),
        (
            "tag_format",
            json!({"tag_format": "{spec_hash}{x}"}),
            "`tag_format` may only hold the placeholder `{spec_hash}`: `{spec_hash}{x}`",
        ),
        (
            "tag_format",
            json!({"tag_format": "{spec_hash}/x"}),
            "`tag_format` gives a tag that no registry accepts: `{spec_hash}/x`",
        ),
        (
            "copy",
            json!({"copy": ["../x"]}),
            "absolute paths or paths with `..` are not allowed in `copy`: `../x`",
        ),
        (
            "copy",
            json!({"copy": ["/x"]}),
            "absolute paths or paths with `..` are not allowed in `copy`: `/x`",
        ),
        (
            "copy",
            json!({"copy": [""]}),
            "expected a path in `copy`: ``",
        ),
        (
            "copy",
            json!({"copy": ["none"]}),
            "`copy` names a path that does not exist: `none`",
        ),
        (
            "source_root",
            json!({"source_root": "none"}),
            "`source_root` names a path that does not exist: `none`",
        ),
        (
            "source_root",
            json!({"source_root": "file"}),
            "`source_root` is not a folder: `file`",
        ),
        (
            "source_root",
            json!({"source_copy_mode": "all"}),
            "field `source_root` must be set when `source_copy_mode` is set",
        ),
        (
            "source_copy_mode",
            json!({"source_copy_mode": "loaded_modules", "source_root": "."}),
            "`source_copy_mode` is `loaded_modules`, which only running Python code can answer",
        ),
        (
            "requirements",
            json!({"requirements": "none.txt"}),
            "`requirements` names a path that does not exist: `none.txt`",
        ),
        (
            "requirements",
            json!({"requirements": "absent.txt"}),
            "`requirements` names a path that does not exist: `none.txt`",
        ),
        (
            "requirements",
            json!({"requirements": "p"}),
            "`requirements` names something that cannot be read: `p`",
        ),
        (
            "requirements",
            json!({"requirements": "uv.lock"}),
            "to use uv.lock, a pyproject.toml file must be in the same directory as the lock file",
        ),
        (
            "requirements",
            json!({"requirements": "loop.txt"}),
            "a requirements file includes itself: `./loop.txt`",
        ),
        (
            "requirements",
            json!({"requirements": "outside.txt"}),
            "a requirements file is outside the folder of the file that includes it: `../x.txt`",
        ),
        (
            "packages",
            json!({"requirements": "p/uv.lock", "packages": []}),
            "support for uv.lock files and packages is mutually exclusive",
        ),
        (
            "conda_packages",
            json!({"python_exec": "/p", "conda_packages": []}),
            "`conda_packages` is not supported with `python_exec`",
        ),
        (
            "conda_channels",
            json!({"python_exec": "/p", "conda_channels": []}),
            "`conda_channels` is not supported with `python_exec`",
        ),
        (
            "pip_secret_mounts",
            json!({"pip_secret_mounts": [["file", "x"]]}),
            "expected a file and an absolute path it is mounted at: `file`, `x`",
        ),
        (
            "pip_secret_mounts",
            json!({"pip_secret_mounts": [["none", "/x"]]}),
            "the secret file does not exist: `none`",
        ),
        (
            "pip_extra_args",
            json!({"pip_extra_args": "'"}),
            "a quote is not closed: `'`",
        ),
        (
            "builder_config",
            json!({"builder_config": {"x": "y"}}),
            "unknown key of `builder_config`: `x`",
        ),
        (
            "builder_config",
            json!({"builder_config": {"uv_image": 1}}),
            "expected the reference of an image in `builder_config`: `uv_image`",
        ),
    ]
}

#[test]
fn every_refusal_names_field_and_value() {
    for (field, json, message) in refusals() {
        let error = refusal(json);
        assert_eq!(
            (error.field.as_deref(), error.message.as_str()),
            (Some(field), message)
        );
        assert_eq!(error.kind, ErrorKind::Input, "{field}");
    }
}

#[test]
fn a_path_beside_the_spec_file_is_hinted_at() {
    let (here, there) = (folder(&[]), folder(&[("requirements.txt", "")]));
    let deployment = Deployment::default();
    let cx = ResolveContext {
        spec_folder: Some(there.path()),
        ..context(here.path(), &deployment)
    };
    let error =
        resolve(&spec(json!({"requirements": "requirements.txt"})), &cx).expect_err("not here");
    assert!(
        error.hints[0].contains(&format!("-C {}", there.path().display())),
        "{:?}",
        error.hints
    );
}

#[test]
fn a_name_that_nobody_wrote_is_checked_too() {
    let (here, deployment) = (folder(&[]), Deployment::default());
    let cx = ResolveContext {
        default_name: "my image",
        ..context(here.path(), &deployment)
    };
    let error = resolve(&spec(json!({})), &cx).expect_err("no repository can be called so");
    assert_eq!(error.message, "invalid image name: `my image`");
    let named = resolved(here.path(), &spec(json!({"name": "My-Image"}))).expect("resolved");
    assert_eq!(named.name(), "my-image");
}

#[test]
fn files_may_be_included_twice_but_not_without_end() {
    let here = folder(&[
        ("r.txt", "-r a.txt\n-r b.txt\n"),
        ("a.txt", "-r c.txt\n"),
        ("b.txt", "-r c.txt\n"),
        ("c.txt", ""),
    ]);
    let spec = spec(json!({"requirements": "r.txt"}));
    assert_eq!(
        resolved(here.path(), &spec)
            .expect("a diamond")
            .plan
            .files
            .len(),
        4
    );
    write(here.path(), "r.txt", "-r 0.txt\n");
    for depth in 0..20 {
        write(
            here.path(),
            &format!("{depth}.txt"),
            &format!("-r {}.txt\n", depth + 1),
        );
    }
    let error = resolved(here.path(), &spec).expect_err("too deep");
    assert!(
        error
            .message
            .starts_with("a requirements file is included too deeply"),
        "{error}"
    );
}

#[test]
fn a_full_disk_says_what_helps_however_deep_it_is() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot write a layer")]
    struct Layer(#[source] std::io::Error);

    let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
    let hints = |error: BuildError| (error.kind, error.hints.concat().contains("cache prune"));
    let told = (ErrorKind::Failed, true);
    let unavailable = || BuildError::unavailable("x");
    assert_eq!(hints(unavailable().caused_by(&full())), told);
    assert_eq!(hints(unavailable().caused_by(&Layer(full()))), told);
    assert_eq!(
        hints(unavailable().caused_by_source_of(&Layer(full()))),
        told
    );
    let other = std::io::Error::from(std::io::ErrorKind::NotFound);
    let silent = (ErrorKind::Unavailable, false);
    assert_eq!(hints(unavailable().caused_by(&Layer(other))), silent);
}
