//! What the tests need of the machine, beside Rust.

use std::path::Path;

use crate::command::{Program, on_path};
use crate::error::Error;
use crate::report;

/// Something the tests run.
struct Need {
    /// Whether it is there.
    check: fn() -> bool,
    /// What it is called, for messages.
    name: &'static str,
    /// The Debian package that has it.
    package: &'static str,
    /// Which tests are skipped without it.
    tests: &'static str,
}

const NEEDS: [Need; 30] = [
    Need {
        check: || Path::new("/usr/bin/qemu-aarch64-static").exists(),
        name: "qemu-aarch64-static",
        package: "qemu-user-static",
        tests: "images for other platforms",
    },
    Need {
        check: || on_path("sshd") && on_path("ssh"),
        name: "sshd",
        package: "openssh-server",
        tests: "an engine of another machine",
    },
    Need {
        check: || on_path("git"),
        name: "git",
        package: "git",
        tests: "repositories that requirements name",
    },
    Need {
        check: || on_path("go"),
        name: "go",
        package: "golang-go",
        tests: "a Python that Debian does not have",
    },
    Need {
        check: || on_path("dockerd"),
        name: "dockerd",
        package: "docker.io",
        tests: "loading images into an engine",
    },
    Need {
        check: || on_path("pkg-config"),
        name: "pkg-config",
        package: "pkg-config",
        tests: "a current engine",
    },
    Need {
        check: || {
            Program::new("pkg-config")
                .args(["--exists", "libseccomp"])
                .succeeds()
        },
        name: "libseccomp",
        package: "libseccomp-dev",
        tests: "a current engine",
    },
    Need {
        check: || on_path("gnome-keyring-daemon"),
        name: "gnome-keyring-daemon",
        package: "gnome-keyring",
        tests: "tokens in a keyring",
    },
    Need {
        check: || on_path("secret-tool"),
        name: "secret-tool",
        package: "libsecret-tools",
        tests: "tokens in a keyring",
    },
    Need {
        check: || on_path("gpg"),
        name: "gpg",
        package: "gnupg",
        tests: "packages for a base of Ubuntu",
    },
    Need {
        check: || on_path("musl-gcc"),
        name: "musl-gcc",
        package: "musl-tools",
        tests: "bases over musl",
    },
    Need {
        check: || on_path("etcd"),
        name: "etcd",
        package: "etcd-server",
        tests: "builds in a cluster",
    },
    Need {
        check: || on_path("containerd"),
        name: "containerd",
        package: "containerd",
        tests: "builds in a cluster",
    },
    Need {
        check: || std::path::Path::new("/usr/lib/cni/ptp").exists(),
        name: "plugins for container networks",
        package: "containernetworking-plugins",
        tests: "builds in a cluster",
    },
    Need {
        check: || on_path("ip"),
        name: "ip",
        package: "iproute2",
        tests: "builds in a cluster",
    },
    Need {
        check: || on_path("curl"),
        name: "curl",
        package: "curl",
        tests: "what is in a registry",
    },
    Need {
        check: || on_path("openssl"),
        name: "openssl",
        package: "openssl",
        tests: "registries with an authority of their own",
    },
    Need {
        check: || on_path("docker-registry"),
        name: "docker-registry",
        package: "docker-registry",
        tests: "pushes and pulls",
    },
    Need {
        check: || on_path("skopeo"),
        name: "skopeo",
        package: "skopeo",
        tests: "bases as other tools make them",
    },
    Need {
        check: || on_path("umoci"),
        name: "umoci",
        package: "umoci",
        tests: "bases as other tools make them",
    },
    Need {
        check: || on_path("buildah"),
        name: "buildah",
        package: "buildah",
        tests: "images as others read them",
    },
    Need {
        check: || on_path("podman"),
        name: "podman",
        package: "podman",
        tests: "images as others read them",
    },
    Need {
        check: || std::path::Path::new("/usr/lib/postgresql").exists(),
        name: "PostgreSQL",
        package: "postgresql",
        tests: "the build service over a shared database",
    },
    Need {
        check: || on_path("chromium"),
        name: "chromium",
        package: "chromium",
        tests: "pages of the build service",
    },
    Need {
        check: || on_path("chromedriver"),
        name: "chromedriver",
        package: "chromium-driver",
        tests: "pages of the build service",
    },
    Need {
        check: || on_path("busybox"),
        name: "busybox",
        package: "busybox-static",
        tests: "the sandbox",
    },
    Need {
        check: || on_path("setpriv"),
        name: "setpriv",
        package: "util-linux",
        tests: "everything as an unprivileged user",
    },
    Need {
        check: || on_path("python3"),
        name: "python3",
        package: "python3",
        tests: "Python packages",
    },
    Need {
        check: || {
            Program::new("python3")
                .args(["-c", "import ensurepip, venv"])
                .succeeds()
        },
        name: "Python's venv",
        package: "python3-venv",
        tests: "the comparison with uv, and the tools of the tasks",
    },
    Need {
        check: || {
            Program::new("python3")
                .args(["-m", "pip", "--version"])
                .succeeds()
        },
        name: "pip",
        package: "python3-pip",
        tests: "Python packages, where uv is not on PATH",
    },
];

/// Installs what is missing where this program may: as root, with apt. Says what stays missing otherwise.
pub(crate) fn set_up() -> Result<(), Error> {
    let missing: Vec<_> = NEEDS.iter().filter(|need| !(need.check)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if on_path("apt-get") && is_root() {
        let packages = missing.iter().map(|need| need.package);
        return install(packages);
    }
    for need in missing {
        report::note(&format!(
            "`{}` is missing, so these tests are skipped or fail: {}; on Debian it is in the package `{}`",
            need.name, need.tests, need.package
        ));
    }
    Ok(())
}

fn install(packages: impl Iterator<Item = &'static str>) -> Result<(), Error> {
    let apt = || {
        Program::new("apt-get")
            .arg("--quiet=2")
            .env("DEBIAN_FRONTEND", "noninteractive")
    };
    apt().arg("update").run()?;
    apt()
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages)
        .run()
}

fn is_root() -> bool {
    Program::new("id")
        .arg("--user")
        .stdout()
        .is_ok_and(|id| id == "0")
}
