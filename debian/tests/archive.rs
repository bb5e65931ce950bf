//! The whole way on the machine's own mirror: signed release, closure, files, layers, a system that runs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use imagespec_core::context::Compression;
use imagespec_core::host::Host;
use imagespec_debian::{Archive, ArchiveOptions, Package, layers, scripts, state};
use imagespec_http::Client;
use imagespec_oci::layer::{LayerInfo, LayerWriter, contract_parents};
use tokio_util::sync::CancellationToken;

type Writer = LayerWriter<File>;

fn layer(path: &Path, write: impl FnOnce(&mut Writer)) -> LayerInfo {
    let file = File::create(path).expect("a file");
    let mut layer = LayerWriter::new(file, Compression::Gzip, contract_parents).expect("a layer");
    write(&mut layer);
    layer.finish().expect("finished").1
}

fn layers_of(folder: &Path, packages: &[Package], archive: &Archive) -> Vec<(PathBuf, LayerInfo)> {
    let file = |package: &Package| archive.package_file(package);
    let cancel = CancellationToken::new();
    let mut written = Vec::new();
    for (at, plan) in layers::group(packages).iter().enumerate() {
        let path = folder.join(format!("{at}.tar.gz"));
        let info = layer(&path, |layer| {
            layers::write(plan, &file, layer, &cancel).expect("written");
        });
        written.push((path, info));
    }
    let path = folder.join("state.tar.gz");
    let info = layer(&path, |layer| {
        state::write(packages, &file, layer, &cancel).expect("written");
    });
    written.push((path, info));
    written
}

fn run(root: &Path, command: &[&str]) -> String {
    let output = Command::new("chroot")
        .arg(root)
        .args(command)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .output()
        .expect("chroot");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

async fn system(suite: &str, python: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Host {
        cache_dir: std::env::temp_dir().join("imagespec-debian-test"),
        ..Host::default()
    };
    let client = Client::new(&host).expect("a client");
    let archive = Archive::open(client, &host, &ArchiveOptions::default()).expect("an archive");
    let suite = archive.suite(suite, "amd64").await.expect("a suite");
    let packages = suite.base_packages(true).expect("a closure");
    let cancel = CancellationToken::new();
    archive
        .fetch(&packages, &|_| {}, &cancel)
        .await
        .expect("packages");

    let first = layers_of(folder.path(), &packages, &archive);
    let again = folder.path().join("again");
    std::fs::create_dir(&again).expect("a folder");
    let second = layers_of(&again, &packages, &archive);
    for ((_, first), (_, second)) in first.iter().zip(&second) {
        assert_eq!(first, second);
    }
    assert!(first.len() <= 5);

    let file = |package: &Package| archive.package_file(package);
    assert!(scripts::needing_scripts(&packages, &file).is_ok());
    if !Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.stdout == b"0\n")
    {
        return;
    }
    let root = folder.path().join("root");
    std::fs::create_dir(&root).expect("a folder");
    for (path, _) in &first {
        let tar = Command::new("tar")
            .args(["--numeric-owner", "-xpzf"])
            .arg(path)
            .arg("-C")
            .arg(&root)
            .status();
        assert!(tar.expect("tar").success());
    }
    // Programs open it, and a container engine provides it.
    std::fs::write(root.join("dev/null"), "").expect("a file");
    check(&root, python);
}

fn check(root: &Path, python: &str) {
    let version = run(
        root,
        &[
            "python3",
            "-c",
            "import ssl,sqlite3,ctypes,sys;print('%d.%d' % sys.version_info[:2])",
        ],
    );
    assert_eq!(version.trim(), python);
    let library = run(
        root,
        &[
            "python3",
            "-c",
            "import ctypes.util;print(ctypes.util.find_library('ssl'))",
        ],
    );
    assert!(library.starts_with("libssl.so"), "{library}");
    assert_eq!(run(root, &["dpkg", "--audit"]), "");
    assert!(run(root, &["dpkg", "-l", "libc6"]).contains("ii  libc6:amd64"));
    run(root, &["apt-get", "check"]);
    assert_eq!(
        run(root, &["id", "flytekit"]).trim(),
        "uid=1000(flytekit) gid=1000(flytekit) groups=1000(flytekit)"
    );
    assert_eq!(
        run(root, &["sh", "-c", "echo a b | awk '{print $2}'"]),
        "b\n"
    );
    assert_eq!(
        run(root, &["update-alternatives", "--query", "awk"])
            .lines()
            .next(),
        Some("Name: awk")
    );
    let cached = run(root, &["ldconfig", "-p"]);
    run(root, &["ldconfig"]);
    // Before bookworm ldconfig also noted which kernel a library asks for; the loader needs no note of it.
    let without_kernel = |line: &str| match line.split_once(", OS ABI") {
        Some((start, rest)) => format!("{start}{}", &rest[rest.find(')').unwrap_or(0)..]),
        None => line.to_owned(),
    };
    let names = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.contains("=>"));
        lines.map(|line| without_kernel(line.trim())).collect()
    };
    assert_eq!(names(&cached), names(&run(root, &["ldconfig", "-p"])));
    // Documentation is left out on purpose; nothing else may differ from what dpkg installed.
    let verify = run(root, &["sh", "-c", "dpkg --verify || true"]);
    let wrong: Vec<&str> = verify
        .lines()
        .filter(|line| {
            ![
                "/usr/share/doc",
                "/usr/share/man",
                "/usr/share/locale",
                "/usr/share/info",
                "/usr/share/lintian",
            ]
            .iter()
            .any(|left_out| line.contains(left_out))
        })
        .collect();
    assert_eq!(wrong, Vec::<&str>::new());
    run(
        root,
        &[
            "sh",
            "-c",
            "cd /etc/ssl/certs && for c in *.pem; do test -e $(openssl x509 -subject_hash -noout -in $c).0 || exit 1; done",
        ],
    );
}

#[tokio::test]
async fn bullseye_is_a_system() {
    system("bullseye", "3.9").await;
}

#[tokio::test]
async fn bookworm_is_a_system() {
    system("bookworm", "3.11").await;
}

#[tokio::test]
async fn trixie_is_a_system() {
    system("trixie", "3.13").await;
}
