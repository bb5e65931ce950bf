//! Memory is bounded by buffers, whatever the size of the image.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The most memory the command may take, in KiB.
const LIMIT: u64 = 256 << 10;
/// A program that writes a wheel whose modules are together larger than that.
const WHEEL: &str = include_str!("wheel.py");
const SPEC: &str = r#"
[images.large]
packages = ["heavy==1", "numpy==2.2.6", "pyarrow==19.0.1"]
pip_extra_args = "--find-links 'FOLDER'"
"#;

/// The largest resident set that a process of ours had so far, in KiB; that of its children is theirs.
fn peak(child: &Child) -> Option<u64> {
    let status = fs_err::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Builds from nothing and answers the peak.
fn build(folder: &Path) -> u64 {
    let errors = fs_err::File::create(folder.join("errors")).expect("a file");
    let mut child = Command::new(env!("CARGO_BIN_EXE_imagespec"))
        .args(["build", "--builder", "native", "--progress", "plain"])
        .current_dir(folder)
        .env("IMAGESPEC_CACHE_DIR", folder.join("cache"))
        .stdout(Stdio::null())
        .stderr(errors.into_parts().0)
        .spawn()
        .expect("the command");
    let mut most = 0;
    let status = loop {
        most = most.max(peak(&child).unwrap_or(0));
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let said = fs_err::read_to_string(folder.join("errors")).expect("a file");
    assert!(status.success(), "{said}");
    assert!(most > 0, "no figure was read");
    most
}

#[test]
fn an_image_of_large_wheels_is_built_in_little_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = SPEC.replace("FOLDER", &folder.path().to_string_lossy());
    fs_err::write(folder.path().join("imagespec.toml"), spec).expect("a file");
    let mut python = Command::new("python3");
    let written = python.args(["-c", WHEEL]).arg(folder.path()).status();
    assert!(written.expect("python3").success());
    let most = build(folder.path());
    assert!(most <= LIMIT, "{most} KiB");
}
