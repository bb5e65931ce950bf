//! Caches that are full, read-only, somebody else's, or no folder; and downloads that are not what they should be.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::index::{Fault, Index};
use crate::place::{Cache, Place, Ran, wheels};

/// A file system in memory, of so many KiB, mounted in the tests' own view of the machine.
struct Small(PathBuf);

impl Small {
    /// `None` where this user may not mount.
    fn mount(at: PathBuf, size: u64) -> Option<Self> {
        fs_err::create_dir_all(&at).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}k"), "tmpfs"]);
        let output = mount.arg(&at).output().expect("mount");
        output.status.success().then_some(Self(at))
    }

    fn resize(&self, size: u64) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={size}k")]);
        assert!(mount.arg(&self.0).status().expect("mount").success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Nothing is left in it that could keep it busy; if so, it goes when that ends.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_to_be_full_and_hurts_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let index = Index::serve(&wheels(folder.path()), None);
    let place = Place::new(Cache::Base, &index);
    let digest = place.build(&["--output", "store"]);
    let full = Place::new(Cache::Downloads, &index);
    // What comes from elsewhere is on the other file system: here it fills with what the build makes.
    let mut kept = vec!["tools", "debian"];
    kept.retain(|name| full.cache().join(name).exists());
    for name in &kept {
        fs_err::rename(full.cache().join(name), full.path(name)).expect("a move");
    }
    let Some(small) = Small::mount(full.cache(), 64) else {
        return;
    };
    for name in &kept {
        fs_err::os::unix::fs::symlink(full.path(name), full.cache().join(name)).expect("a link");
    }
    let mut said = Vec::new();
    for size in [64, 8 << 10, 64 << 10, 190 << 10] {
        small.resize(size);
        let ran = full.run(&["build", "--output", "store", "--progress", "plain"]);
        if ran.code == Some(0) {
            break;
        }
        assert_eq!(ran.code, Some(1), "{size} KiB: {}", ran.stderr);
        assert!(
            ran.stderr.contains("os error 28"),
            "{size} KiB: {}",
            ran.stderr
        );
        assert!(
            ran.stderr.contains("cache prune"),
            "{size} KiB: {}",
            ran.stderr
        );
        full.verify();
        let mut causes = ran.stderr.lines().filter(|line| line.contains("cannot "));
        said.extend(causes.next_back().map(str::to_owned));
    }
    said.dedup();
    assert!(
        said.len() > 2,
        "it always fails in the same place: {said:?}"
    );
    small.resize(1 << 20);
    assert_eq!(full.build(&["--output", "store"]), digest);
    full.verify();
    full.says(&["cache", "prune"]);
    assert_eq!(full.leftovers(), [""; 0]);
}

/// The errors of a build that must fail with a code.
#[track_caller]
fn fails(place: &Place, code: i32) -> String {
    let ran = place.run(&["build", "--output", "store", "--progress", "plain"]);
    assert_eq!(ran.code, Some(code), "{}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    ran.stderr
}

#[test]
fn a_cache_that_cannot_be_written_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let index = Index::serve(&wheels(folder.path()), None);
    let mut place = Place::empty("[images.app]\npackages = [\"beta\"]\n", &index.url(""));
    let file = place.path("file");
    fs_err::write(&file, "precious").expect("a file");
    for path in [file.clone(), file.join("below")] {
        place.set("IMAGESPEC_CACHE_DIR", path.to_str().expect("a path"));
        let said = fails(&place, 1);
        assert!(said.contains("IMAGESPEC_CACHE_DIR"), "{said}");
    }
    assert_eq!(fs_err::read_to_string(&file).expect("a file"), "precious");
    let cache = place.cache();
    place.set("IMAGESPEC_CACHE_DIR", cache.to_str().expect("a path"));
    if let Some(small) = Small::mount(cache.clone(), 1024) {
        let mut mount = Command::new("mount");
        mount.args(["-o", "remount,ro"]).arg(&cache);
        assert!(mount.status().expect("mount").success());
        let said = fails(&place, 1);
        assert!(said.contains("IMAGESPEC_CACHE_DIR"), "{said}");
        drop(small);
    }
}

#[test]
fn somebody_elses_cache_and_no_home_say_what_to_set() {
    let folder = tempfile::tempdir().expect("a folder");
    fs_err::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    let cache = folder.path().join("cache");
    fs_err::create_dir(&cache).expect("a folder");
    fs_err::set_permissions(&cache, PermissionsExt::from_mode(0o755)).expect("a mode");
    // The home of that account does not exist either.
    for cache in [Some(cache.as_path()), None] {
        let Some(ran) = as_nobody(folder.path(), cache) else {
            return;
        };
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains("IMAGESPEC_CACHE_DIR"), "{}", ran.stderr);
    }
}

/// A build by an unprivileged user; `None` where there is no way to be one.
fn as_nobody(folder: &Path, cache: Option<&Path>) -> Option<Ran> {
    let program = folder.join("imagespec");
    fs_err::copy(env!("CARGO_BIN_EXE_imagespec"), &program).expect("a copy");
    fs_err::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a mode");
    fs_err::write(folder.join("imagespec.toml"), "[images.app]\n").expect("a file");
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--",
        ])
        .arg(program)
        .args(["build", "--output", "store"])
        .current_dir(folder)
        .env_remove("HOME")
        .env_remove("XDG_CACHE_HOME")
        .env_remove("IMAGESPEC_CACHE_DIR")
        .envs(cache.map(|cache| ("IMAGESPEC_CACHE_DIR", cache)))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let ran = Ran::wait(command.spawn().ok()?);
    (!ran.stderr.starts_with("setpriv")).then_some(ran)
}

#[test]
fn downloads_that_lie_are_refused_and_the_next_build_succeeds() {
    let folder = tempfile::tempdir().expect("a folder");
    let index = Index::serve(&wheels(folder.path()), None);
    let place = Place::new(Cache::Base, &index);
    for (fault, codes) in [
        (Fault::Closed, &[3][..]),
        (Fault::Half, &[1, 3]),
        (Fault::Short, &[1]),
        (Fault::Other, &[1]),
    ] {
        index.set(fault);
        let ran = place.run(&["build", "--output", "store", "--progress", "plain"]);
        let code = ran.code.unwrap_or(-1);
        assert!(codes.contains(&code), "{fault:?}: {code}: {}", ran.stderr);
        if fault != Fault::Closed {
            let named = ["alpha-1", "beta-1", "gamma-1"];
            let named = named.iter().any(|name| ran.stderr.contains(name));
            assert!(named, "{fault:?}: {}", ran.stderr);
        }
        assert_eq!(place.leftovers(), [""; 0], "{fault:?}");
    }
    index.set(Fault::HalfOnce);
    let digest = place.build(&["--output", "store"]);
    let sound = Place::new(Cache::Base, &index);
    assert_eq!(sound.build(&["--output", "store"]), digest);
}
