//! Images as those who read them see them: each of our forms, by each reader, is the same root file system.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::engine::{Engine, Release, root};
use crate::place::{Place, Running, has};
use crate::registry::Served;

/// Deletes, replaces a folder, and writes names of more than 100 and more than 255 bytes, two names of one file, a
/// link, owners, modes and a capability.
const DECLARATION: &str = r#"
[images.app]
commands = [
    "rm /etc/issue",
    "rm -r /etc/apt && mkdir /etc/apt && echo new >/etc/apt/new",
    "d=/srv/$(printf %0110d 1)/$(printf %0120d 2); mkdir -p $d; echo deep >$d/$(printf %0130d 3)",
    "echo a >/srv/a; ln /srv/a /srv/b; ln -s a /srv/l; chown 12:34 /srv/a; chmod 4751 /srv/a",
    "cp /bin/true /srv/able && python3 -c 'import os; os.setxattr(\"/srv/able\", \"security.capability\", bytes.fromhex(\"0100000200200000\" + 24 * \"0\"))'",
]
"#;

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("a program");
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

fn text(output: Output) -> String {
    String::from_utf8(output.stdout)
        .expect("a text")
        .trim()
        .to_owned()
}

fn look() -> Command {
    let mut look = Command::new("python3");
    look.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/delivering/consumers.py"));
    look
}

/// What is in an unpacked root file system.
fn in_folder(folder: &Path) -> String {
    text(run(look().arg(folder)))
}

/// What is in the archive that a program writes.
fn in_archive(command: &mut Command) -> String {
    let mut writer = command.stdout(Stdio::piped()).spawn().expect("a program");
    let archive = writer.stdout.take().expect("a pipe");
    let seen = text(run(look().arg("-").stdin(archive)));
    assert!(writer.wait().expect("an end").success(), "{command:?}");
    seen
}

fn umoci(reference: &str, folder: &Path) -> String {
    let layout = format!("oci:{}:app", folder.join("layout").display());
    run(Command::new("skopeo")
        .args(["copy", "--quiet", "--src-tls-verify=false"])
        .args([&format!("docker://{reference}"), &layout]));
    run(Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:app", folder.join("layout").display()))
        .arg(folder.join("bundle")));
    in_folder(&folder.join("bundle/rootfs"))
}

/// What buildah and podman share.
fn containers(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--storage-driver", "overlay", "--root"]);
    command.arg(folder.join("containers"));
    command.arg("--runroot").arg(folder.join("running"));
    command
}

fn buildah(reference: &str, folder: &Path) -> String {
    let buildah = || containers("buildah", folder);
    let from = ["from", "--quiet", "--pull-always", "--tls-verify=false"];
    let container = text(run(buildah().args(from).arg(reference)));
    let mounted = text(run(buildah().args(["mount", &container])));
    let seen = in_folder(Path::new(&mounted));
    run(buildah().args(["rm", &container]));
    seen
}

fn podman(reference: &str, folder: &Path) -> String {
    let podman = || containers("podman", folder);
    run(podman()
        .args(["pull", "--quiet", "--tls-verify=false"])
        .arg(reference));
    let container = text(run(podman()
        .args(["create", "--network=none"])
        .args([reference, "true"])));
    in_archive(podman().args(["export", &container]))
}

fn docker(engine: &Engine, reference: &str) -> String {
    let docker = || engine.client();
    run(docker().args(["pull", "--quiet", reference]));
    let container = text(run(docker().args(["create", reference, "true"])));
    let seen = in_archive(docker().args(["export", &container]));
    run(docker().args(["rm", &container]));
    seen
}

/// A containerd of its own.
struct Containerd {
    _process: Running,
    socket: PathBuf,
}

impl Containerd {
    fn start(folder: &Path) -> Self {
        let socket = folder.join("containerd.sock");
        let process = Command::new("containerd")
            .arg("--root")
            .arg(folder.join("containerd"))
            .arg("--state")
            .arg(folder.join("state"))
            .arg("--address")
            .arg(&socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("containerd");
        let this = Self {
            _process: Running(process),
            socket,
        };
        let until = Instant::now() + Duration::from_mins(1);
        while !this
            .ctr(&["version"])
            .output()
            .is_ok_and(|output| output.status.success())
        {
            assert!(Instant::now() < until, "containerd does not answer");
            std::thread::sleep(Duration::from_millis(200));
        }
        this
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(arguments);
        command
    }

    fn see(&self, reference: &str, folder: &Path) -> String {
        let snapshotter = ["--snapshotter", "overlayfs"];
        run(self
            .ctr(&["images", "pull", "--plain-http"])
            .args(snapshotter)
            .arg(reference));
        let target = folder.join("mounted");
        fs_err::create_dir_all(&target).expect("a folder");
        run(self
            .ctr(&["images", "mount"])
            .args(snapshotter)
            .arg(reference)
            .arg(&target));
        let seen = in_folder(&target);
        run(self.ctr(&["images", "unmount"]).arg(&target));
        seen
    }
}

/// Whether every reader is here.
fn can_read() -> bool {
    let programs = [
        "docker-registry",
        "dockerd",
        "docker",
        "containerd",
        "ctr",
        "skopeo",
        "umoci",
        "buildah",
        "podman",
        "python3",
    ];
    programs.iter().all(|program| has(program)) && root()
}

#[test]
fn every_reader_sees_the_same_files() {
    if !can_read() {
        return;
    }
    let served = Served::new(&[]);
    let place = Place::new(DECLARATION);
    let folder = tempfile::tempdir().expect("a folder");
    let engines = [Release::Oldest, Release::Current].map(Engine::start);
    let containerd = Containerd::start(folder.path());
    let mut expected = None;
    for compression in ["gzip", "zstd"] {
        let registry = format!("{}/{compression}", served.address);
        let built = place.builds(&[
            "--registry",
            &registry,
            "--compression",
            compression,
            "--no-bytecode",
        ]);
        let reference = built["reference"].as_str().expect("a reference");
        let at = folder.path().join(compression);
        fs_err::create_dir_all(&at).expect("a folder");
        let mut seen = vec![
            ("buildah", buildah(reference, &at)),
            ("podman", podman(reference, &at)),
            ("containerd", containerd.see(reference, &at)),
        ];
        for engine in engines.iter().flatten() {
            seen.push(("docker", docker(engine, reference)));
        }
        // It knows no zstd in the version that Debian 12 has.
        if compression != "zstd" {
            seen.push(("umoci", umoci(reference, &at)));
        }
        for (reader, files) in seen {
            let expected = expected.get_or_insert_with(|| files.clone());
            assert_eq!(&files, expected, "{reader} of {compression}");
        }
        fs_err::remove_dir_all(at).expect("no mounts");
    }
    let expected = expected.expect("what was seen");
    let deep = format!("srv/{:0110}/{:0120}/{:0130} 100000", 1, 2, 3);
    for line in [
        "etc/apt 40000 755 0:0",
        "etc/apt/new 100000 644 0:0",
        &deep,
        "srv/a 100000 4751 12:34 87428fc52280",
        "srv/b 100000 4751 12:34 87428fc52280",
        "srv/l 120000 777",
    ] {
        assert!(expected.contains(line), "{line}: {expected}");
    }
    let able = expected.lines().find(|line| line.starts_with("srv/able "));
    let capability = format!(" 0100000200200000{:024}", 0);
    assert!(
        able.is_some_and(|able| able.ends_with(&capability)),
        "{expected}"
    );
    assert!(!expected.contains("etc/issue") && expected.matches("etc/apt").count() == 2);
}

/// Has an image read, in a folder for that.
type Reader<'r> = &'r dyn Fn(&Path) -> String;

#[test]
#[ignore = "long: `cargo xtask soak`"]
fn a_file_of_nine_gigabytes_reaches_every_reader() {
    if !can_read() {
        return;
    }
    let served = Served::new(&[]);
    let command = "echo start >/srv/large; truncate -s 9G /srv/large; echo end >>/srv/large";
    let place = Place::new(&format!("[images.app]\ncommands = [\"{command}\"]\n"));
    let registry = format!("{}/large", served.address);
    let built = place.builds(&["--registry", &registry, "--no-bytecode"]);
    let reference = built["reference"].as_str().expect("a reference");
    let in_engine = |release| {
        let engine = Engine::start(release).expect("an engine");
        docker(&engine, reference)
    };
    // One after another, in folders that go at once: each writes all of it.
    let readers: [(&str, Reader<'_>); 6] = [
        ("buildah", &|at| buildah(reference, at)),
        ("podman", &|at| podman(reference, at)),
        ("containerd", &|at| Containerd::start(at).see(reference, at)),
        ("umoci", &|at| umoci(reference, at)),
        ("docker 20.10", &|_| in_engine(Release::Oldest)),
        ("docker", &|_| in_engine(Release::Current)),
    ];
    let mut expected = None;
    for (reader, see) in readers {
        let at = tempfile::tempdir().expect("a folder");
        let files = see(at.path());
        let expected = expected.get_or_insert_with(|| files.clone());
        assert_eq!(&files, expected, "{reader}");
    }
    let expected = expected.expect("what was seen");
    let line = expected
        .lines()
        .find(|line| line.starts_with("srv/large 100000 644 0:0 "));
    assert!(line.is_some(), "{expected}");
}
