//! A base over musl, as Alpine is: wheels for it, its own Python, what musl does not have told of.

use std::path::Path;
use std::process::Command;

use super::app;
use super::variant::Ground;
use crate::place::{Place, has, tools};

/// A root file system of musl, a Python over it and a shell that needs no library.
fn root(python: &Path, folder: &Path) -> String {
    let programs = python.join("bin");
    let mut programs = programs.read_dir().expect("programs");
    let program = programs.next().expect("a program").expect("a program");
    let name = program.file_name().to_string_lossy().into_owned();
    let script = "set -eu; cd \"$1\"; mkdir -p bin etc lib tmp usr/local usr/bin; cp -R \"$2\"/. usr/local; \
         ln -s \"$3\" usr/local/bin/python3; cp /bin/busybox bin/busybox; for name in sh cp mkdir cat id rm ls; do ln -s busybox bin/$name; done; \
         cp -L /lib/ld-musl-*.so.1 lib; chmod 1777 tmp; \
         printf 'ID=alpine\\nVERSION_ID=3.16.0\\n' > etc/os-release; \
         printf 'root:x:0:0:root:/root:/bin/sh\\n' > etc/passwd; printf 'root:x:0:\\n' > etc/group";
    let status = Command::new("sh")
        .args(["-c", script, "sh"])
        .args([folder, python])
        .arg(&name)
        .status();
    assert!(status.expect("sh").success());
    name
}

#[test]
fn packages_go_over_musl() {
    let Some(tools) = tools("IMAGESPEC_TEST_MUSL") else {
        return;
    };
    let Some(ground) = has("busybox").then(Ground::new).flatten() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let python = root(&tools[0], folder.path());
    let path = "--config.env=PATH=/usr/local/bin:/usr/bin:/bin";
    ground.scratch("musl:1", folder.path(), &[path]);

    let declaration = "packages = [\"pyyaml==6.0.2\", \"markupsafe==3.0.2\", \"docopt==0.6.2\"]\nenv = { A = \"a b\" }\n\
         commands = [\"id -u > /root/who; uv --version; pip --version; echo $0 > /root/shell\"]\n";
    let place = Place::new(&app(&ground, "musl:1", declaration));
    let built = place.builds(&["--builder", "native"]);
    assert_eq!(place.builds(&["--builder", "native"])["built"], false);
    assert!(
        built["work"]["wheels_fetched"].as_u64() >= Some(2),
        "{built}"
    );
    let look = "import docopt, glob, markupsafe._speedups as fast, yaml, os, sys; \
         print(yaml.load('6', yaml.CSafeLoader), '-linux-musl.so' in fast.__file__, os.getuid(), os.environ['A'], \
         sys.executable, sys.base_prefix, open('/root/who').read().strip(), open('/root/shell').read().strip(), bool(glob.glob(yaml.__path__[0] + '/__pycache__/*.pyc')))";
    let exec = [
        "exec",
        "app",
        "--progress",
        "quiet",
        "--",
        "python",
        "-c",
        look,
    ];
    assert_eq!(
        place.says(&exec),
        "6 True 1000 a b /opt/venv/bin/python /usr/local 0 /bin/sh True",
        "{python}"
    );

    // A package with wheels for glibc alone.
    let declaration = "packages = [\"nvidia-nccl-cu12==2.21.5\"]";
    let place = Place::new(&app(&ground, "musl:1", declaration));
    let (code, told) = place.fails(&["build", "--builder", "native", "--progress", "plain"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("nvidia-nccl-cu12"), "{told}");
    assert!(told.contains("musl"), "{told}");
    let place = Place::new(&app(&ground, "musl:1", "apt_packages = [\"libedit2\"]"));
    let (code, told) = place.fails(&["build", "--builder", "native"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("needs a base of Debian or Ubuntu"), "{told}");
}
