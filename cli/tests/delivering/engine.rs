//! Images into a container engine.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::place::{Place, has, tools};

pub(crate) fn root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id");
    output.stdout == b"0\n"
}

/// Engines that the tests start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// The oldest that builds: Debian's, 20.10, which keeps images itself.
    Oldest,
    /// Today's, which keeps images in containerd.
    Current,
    /// Podman, which speaks Docker's API.
    Podman,
}

/// An engine with folders of its own.
pub(crate) struct Engine {
    process: Polite,
    _mounts: Mounts,
    folder: tempfile::TempDir,
    pub(crate) release: Release,
}

impl Engine {
    /// An engine, if this machine has what it takes.
    pub(crate) fn start(release: Release) -> Option<Self> {
        Self::start_on(release, None)
    }

    /// An engine that keeps its data in a folder of somebody else's.
    pub(crate) fn start_on(release: Release, data: Option<&Path>) -> Option<Self> {
        let programs = ["docker", "dockerd", "podman"];
        if !programs.into_iter().all(has) || !root() {
            return None;
        }
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        if release == Release::Current {
            let mut folders = tools("IMAGESPEC_TEST_ENGINE")?;
            folders.extend(std::env::split_paths(&path));
            path = std::env::join_paths(folders).expect("folders");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let data = data.map_or_else(|| at("data"), Path::to_owned);
        let socket = format!("unix://{}", at("sock").display());
        let mut command = Command::new(match release {
            Release::Podman => "podman",
            Release::Oldest | Release::Current => "dockerd",
        });
        if release == Release::Podman {
            command.arg("--root").arg(data);
            command.arg("--runroot").arg(at("exec"));
            command.args(["system", "service", "--time", "0", &socket]);
        } else {
            command.args(["--host", &socket]);
            command.arg("--data-root").arg(data);
            command.arg("--exec-root").arg(at("exec"));
            command.arg("--pidfile").arg(at("pid"));
            command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false"]);
        }
        let log = fs_err::File::create(at("log")).expect("a file");
        let process = command
            .env("PATH", path)
            .stdout(Stdio::null())
            .stderr(log.into_parts().0)
            .spawn()
            .expect("an engine");
        let engine = Self {
            process: Polite(process),
            _mounts: Mounts(folder.path().to_owned()),
            folder,
            release,
        };
        let until = Instant::now() + Duration::from_mins(1);
        while !engine.folder.path().join("sock").exists()
            || !engine.docker(&["version"]).status.success()
        {
            let log = fs_err::read_to_string(engine.folder.path().join("log"));
            assert!(Instant::now() < until, "{}", log.unwrap_or_default());
            std::thread::sleep(Duration::from_millis(200));
        }
        Some(engine)
    }

    /// Asks it to end.
    pub(crate) fn end(&self) {
        assert!(self.process.ask(), "the engine runs");
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.folder.path().join("sock").display())
    }

    fn docker(&self, arguments: &[&str]) -> Output {
        self.client().args(arguments).output().expect("docker")
    }

    /// A client of the engine, whose subcommands are Docker's.
    pub(crate) fn client(&self) -> Command {
        if self.release == Release::Podman {
            let mut command = Command::new("podman");
            command.arg("--root").arg(self.folder.path().join("data"));
            command
                .arg("--runroot")
                .arg(self.folder.path().join("exec"));
            return command;
        }
        let mut command = Command::new("docker");
        command.arg("--host").arg(self.address());
        command
    }

    /// What an image's Python prints, without a network.
    pub(crate) fn python(&self, image: &str, program: &str) -> String {
        let run = [
            "run",
            "--rm",
            "--network",
            "none",
            "--entrypoint",
            "/opt/venv/bin/python",
        ];
        // Podman would raise limits that a container around this one has set.
        let limits = match self.release {
            Release::Podman => &["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"][..],
            Release::Oldest | Release::Current => &[],
        };
        let output = self
            .client()
            .args(run)
            .args(limits)
            .args([image, "-c", program])
            .output();
        let output = output.expect("docker");
        assert!(output.status.success(), "{image}: {output:?}");
        String::from_utf8(output.stdout).expect("a text")
    }

    pub(crate) fn inspect(&self, image: &str, format: &str) -> String {
        let output = self.docker(&["image", "inspect", "--format", format, image]);
        assert!(output.status.success(), "{image}: {output:?}");
        String::from_utf8(output.stdout)
            .expect("a text")
            .trim()
            .to_owned()
    }
}

/// What an engine leaves mounted below its folder.
pub(crate) struct Mounts(pub(crate) PathBuf);

impl Drop for Mounts {
    fn drop(&mut self) {
        let mounts = fs_err::read_to_string("/proc/self/mounts").unwrap_or_default();
        let places = mounts
            .lines()
            .rev()
            .filter_map(|line| line.split(' ').nth(1));
        for place in places.filter(|place| Path::new(place).starts_with(&self.0)) {
            let _ = Command::new("umount").args(["--lazy", place]).status();
        }
    }
}

/// A daemon that is asked to end with the test, so that it ends what it has started itself.
pub(crate) struct Polite(pub(crate) Child);

impl Polite {
    fn ask(&self) -> bool {
        let id = self.0.id().to_string();
        let asked = Command::new("kill").arg(id).status();
        asked.is_ok_and(|status| status.success())
    }
}

impl Drop for Polite {
    fn drop(&mut self) {
        if self.ask() {
            let _ = self.0.wait();
        }
    }
}

/// A test with each engine: a function that takes one becomes three tests of its name.
macro_rules! with_every_engine {
    ($($test:ident)*) => {
        $(mod $test {
            use crate::engine::{Engine, Release};

            #[test]
            fn with_the_oldest_engine() {
                Engine::start(Release::Oldest).iter().for_each(super::$test);
            }

            #[test]
            fn with_podman() {
                Engine::start(Release::Podman).iter().for_each(super::$test);
            }

            #[test]
            fn with_a_current_engine() {
                Engine::start(Release::Current).iter().for_each(super::$test);
            }
        })*
    };
}
pub(crate) use with_every_engine;

with_every_engine!(an_engine_is_loaded_with_the_image_and_its_names);

fn an_engine_is_loaded_with_the_image_and_its_names(engine: &Engine) {
    let mut place = Place::new("[images.app]\nenv = { A = \"engine\" }\n");
    place.set("DOCKER_HOST", &engine.address());
    place.set("IMAGESPEC_BUILDER", "native");
    let docker = ["--no-bytecode", "--output", "docker"];
    let flags = |more: &[&'static str]| [&["--output", "docker"], more].concat();
    let built = place.builds(&[&docker[..], &["--tag", "v1"]].concat());
    assert_eq!(
        (&built["built"], built["digest"].is_null()),
        (&true.into(), true)
    );
    let name = built["reference"].as_str().expect("a name");
    assert!(engine.inspect(name, "{{.Config.Env}}").contains("A=engine"));
    let id = engine.inspect(name, "{{.Id}}");
    assert_eq!(engine.inspect("app:v1", "{{.Id}}"), id);

    let found = place.builds(&flags(&["--tag", "v2"]));
    assert_eq!(found["built"], false);
    assert_eq!(engine.inspect("app:v2", "{{.Id}}"), id);

    let labelled = place.builds(&[&docker[..], &["--label", "team=ml"]].concat());
    assert_eq!(labelled["built"], true);
    assert_eq!(engine.inspect(name, "{{.Config.Labels.team}}"), "ml");
    assert_eq!(
        place.builds(&flags(&["--label", "team=ml"]))["built"],
        false
    );
    let line = place.says(&["build", "--output", "docker", "--progress", "quiet"]);
    assert_eq!(line, name, "an engine knows no digest");
}

#[test]
fn without_an_engine_nothing_is_built() {
    let mut place = Place::with_own_cache("[images.app]\n");
    let socket = format!("unix://{}", place.path("none.sock").display());
    place.set("DOCKER_HOST", &socket);
    place.set("IMAGESPEC_BUILDER", "native");
    for flags in [
        &["--output", "docker"][..],
        &["--output", "docker", "--force"],
    ] {
        let (code, told) = place.fails(&[&["build"], flags].concat());
        assert_eq!(code, Some(3), "{told}");
        assert!(
            told.contains("no container engine answers") && told.contains("DOCKER_HOST"),
            "{told}"
        );
    }
    assert!(
        !Path::exists(&place.cache().join("debian")),
        "nothing was fetched"
    );
}
