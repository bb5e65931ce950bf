//! The builder `default` with images for platforms that this machine emulates.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::docker::{HOST, interrupt};
use crate::engine::{Engine, Release, with_every_engine};
use crate::place::{Place, has};
use crate::registry::Served;

/// Where the kernel is told who runs programs of other machines.
const FORMATS: &str = "/proc/sys/fs/binfmt_misc";
const EMULATOR: &str = "/usr/bin/qemu-aarch64-static";
/// How programs of arm64 begin, and which bits of that count. `F`: the emulator is opened now, so that it is there in every
/// container.
const FORMAT: &str = r":qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F";

/// Whether this machine runs programs of arm64, as it is made to where it can be.
fn emulates() -> bool {
    if cfg!(target_arch = "aarch64") {
        return true;
    }
    let formats = Path::new(FORMATS);
    if !formats.join("register").exists() {
        let mounted = Command::new("mount")
            .args(["-t", "binfmt_misc", "binfmt_misc", FORMATS])
            .status();
        assert!(mounted.expect("mount").success());
    }
    let known = formats.join("qemu-aarch64");
    if !known.exists() {
        assert!(Path::new(EMULATOR).exists(), "the test needs `{EMULATOR}`");
        // Another test may be faster.
        let _ = fs_err::write(formats.join("register"), FORMAT);
    }
    known.exists()
}

/// What the image of a platform prints, as the engine pulls and runs it.
fn python(engine: &Engine, image: &str, platform: &str) -> String {
    let pulled = engine
        .client()
        .args(["pull", "--quiet", "--platform", platform])
        .arg(image)
        .output()
        .expect("docker");
    assert!(pulled.status.success(), "{image}: {pulled:?}");
    let program = "import platform, six; print(platform.machine(), open('/root/machine').read())";
    engine
        .python(image, program)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The platforms of an index of the registry.
fn platforms(served: &Served, tag: &str) -> Vec<String> {
    let index: Value = serde_json::from_str(&served.index("acme/app", tag)).expect("JSON");
    let manifests = index["manifests"].as_array().expect("manifests");
    let platforms = manifests.iter().map(|manifest| &manifest["platform"]);
    platforms
        .map(|platform| {
            platform["architecture"]
                .as_str()
                .expect("a name")
                .to_owned()
        })
        .collect()
}

with_every_engine!(an_image_for_several_platforms_is_one_index);

fn an_image_for_several_platforms_is_one_index(engine: &Engine) {
    if !has("docker-registry") || !emulates() {
        return;
    }
    let served = Served::new(&[]);
    let pause = match engine.release {
        Release::Oldest => "sleep 293",
        _ => "sleep 294",
    };
    let both = format!(
        "registry = \"{}/acme\"\nplatform = \"linux/amd64,linux/arm64\"",
        served.address
    );
    let mut place = Place::new(&format!(
        "[images.app]\n{both}\npackages = [\"six\"]\ncommands = [\"uname -m > /root/machine\"]\n\
         [images.slow]\n{both}\ncommands = [\"test $(uname -m) = x86_64 || (echo begun; {pause})\"]\n"
    ));
    place.set("DOCKER_HOST", &engine.address());
    let asked = [&["app", "--builder", "default"], &HOST[..]].concat();
    if engine.release == Release::Podman {
        let (code, said) = place.fails(&[&["build"], &asked[..]].concat());
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("because of `platform`"), "{said}");
        return;
    }
    let built = place.builds(&[&asked[..], &["--tag", "1"]].concat());
    assert_eq!(built["built"], true);
    assert_eq!(platforms(&served, "1"), ["amd64", "arm64"]);
    assert_eq!(place.builds(&asked)["built"], false);
    let image = format!("{}/acme/app:1", served.address);
    for (platform, said) in [
        ("linux/arm64", "aarch64 aarch64"),
        ("linux/amd64", "x86_64 x86_64"),
    ] {
        assert_eq!(python(engine, &image, platform), said);
    }
    // What an engine was made to call the images meanwhile is gone, also where somebody interrupts.
    let listed = || {
        let listed = engine.client().arg("images").output().expect("docker");
        String::from_utf8_lossy(&listed.stdout).into_owned()
    };
    let name = built["reference"].as_str().expect("a name");
    let tag = name.rsplit_once(':').expect("a tag").1;
    assert!(!listed().contains(tag), "{}", listed());
    let slow = [&["slow", "--builder", "default"], &HOST[..]].concat();
    interrupt(&place, &slow, &format!("{EMULATOR} [^ ]*{pause}"));
    assert!(!listed().contains("acme/slow"), "{}", listed());

    let output = ["--output", "docker"];
    let (code, said) = place.fails(&[&["build"], &asked[..], &output].concat());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("because of `platform`"), "{said}");
    let one = ["--platform", "linux/arm64", "--force"];
    let alone = place.builds(&[&asked[..], &output, &one].concat());
    let name = alone["reference"].as_str().expect("a name");
    assert_eq!(engine.inspect(name, "{{.Architecture}}"), "arm64");

    let strange = ["--platform", "linux/s390x"];
    let mut over = place.again();
    over.write(
        "imagespec.toml",
        &format!("[images.app]\nbase_image = \"{image}\"\npackages = [\"idna\"]\n"),
    );
    over.set("DOCKER_HOST", &engine.address());
    let (code, said) = over.fails(&[&["build"], &asked[..], &strange].concat());
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("cannot run programs of `linux/s390x`"),
        "{said}"
    );
    if engine.release == Release::Oldest
        && let Some(daemon) = Daemon::start(None)
    {
        let daemon = ["--option", &daemon.option(), "--force", "--tag", "2"].map(str::to_owned);
        let daemon: Vec<_> = daemon.iter().map(String::as_str).collect();
        place.builds(&[&asked[..], &daemon].concat());
        assert_eq!(platforms(&served, "2"), ["amd64", "arm64"]);
        let image = format!("{}/acme/app:2", served.address);
        assert_eq!(python(engine, &image, "linux/arm64"), "aarch64 aarch64");
    }
}
