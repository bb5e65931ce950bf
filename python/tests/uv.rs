//! uv, fetched from the machine's own package index.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_python::uv::{Uv, VERSION};

#[tokio::test]
async fn a_machine_with_uv_and_without_pip_has_one_for_containers() {
    let variables: BTreeMap<_, _> = std::env::vars().collect();
    let path = variables.get("PATH").cloned().unwrap_or_default();
    let machine = Host {
        variables,
        cache_dir: Path::new(env!("CARGO_TARGET_TMPDIR")).join("lock"),
        ..Host::default()
    };
    let own = Uv::find(&machine).await.expect("uv");
    // A Python as distributions have it: without pip, which is a package of its own there.
    let folder = tempfile::tempdir().expect("a folder");
    symlink(own.path(), folder.path().join("uv")).expect("a link");
    let script = "#!/bin/sh\nif [ \"$1 $2\" = '-m pip' ]; then\n  echo \"$0: No module named pip\" >&2\n  exit 1\nfi\n\
                  PATH=${PATH#*:}\nexec python3 \"$@\"\n";
    let python = folder.path().join("python3");
    fs_err::write(&python, script).expect("a script");
    fs_err::set_permissions(&python, PermissionsExt::from_mode(0o755)).expect("a mode");
    let mut without = Host {
        cache_dir: folder.path().join("cache"),
        ..machine
    };
    let path = format!("{}:{path}", folder.path().display());
    without.variables.insert("PATH".to_owned(), path);
    let uv = Uv::portable(&without, &Platform::host()).await;
    let uv = uv.expect("a uv for containers");
    let output = Command::new(uv.path()).arg("--version").output();
    let version = String::from_utf8(output.expect("its version").stdout).expect("a text");
    assert!(version.contains(VERSION), "{version}");
}
