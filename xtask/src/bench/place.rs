//! Where a build happens: a project, a cache and a registry that nothing else uses.

use std::ffi::OsString;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::command::Program;
use crate::error::Error;

/// Debian's `docker-registry` on a free port of this machine, with an empty folder.
#[derive(Debug)]
pub(super) struct Registry {
    child: Child,
    port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    fn start(folder: &Path) -> Result<Self, Error> {
        let missing = || Error::Missing {
            program: "docker-registry",
        };
        fs_err::create_dir_all(folder)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = folder.join("config.yml");
        let storage = folder.join("blobs");
        fs_err::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
                 rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
                storage.display()
            ),
        )?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|_| missing())?;
        let registry = Self { child, port };
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(registry);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(missing())
    }

    /// Its address, as references name it.
    pub(super) fn name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// What a build told of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) size: u64,
    pub(super) pushed: u64,
}

/// A place to build in.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) project: PathBuf,
    pub(super) registry: Registry,
    cache: PathBuf,
    program: PathBuf,
    /// With the uv that the peers have, too.
    path: OsString,
    bytecode: bool,
}

impl Place {
    /// An empty place in an empty folder.
    pub(super) fn new(
        program: &Path,
        uv: &Path,
        folder: &Path,
        bytecode: bool,
    ) -> Result<Self, Error> {
        let project = folder.join("project");
        fs_err::create_dir_all(&project)?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let tools = uv.parent().map(Path::to_owned);
        let path = std::env::join_paths(tools.into_iter().chain(std::env::split_paths(&path)))
            .map_err(std::io::Error::other)?;
        Ok(Self {
            project,
            registry: Registry::start(&folder.join("registry"))?,
            cache: folder.join("cache"),
            program: program.to_owned(),
            path,
            bytecode,
        })
    }

    /// `imagespec` with a subcommand, in the project.
    pub(super) fn imagespec(&self, subcommand: &str) -> Program {
        self.imagespec_in(&self.project, subcommand)
    }

    fn imagespec_in(&self, project: &Path, subcommand: &str) -> Program {
        Program::new(&self.program)
            .arg("-C")
            .arg(project)
            .arg(subcommand)
            .env("IMAGESPEC_CACHE_DIR", &self.cache)
            .env("PATH", &self.path)
    }

    fn building(&self, project: &Path) -> Program {
        let bytecode = if self.bytecode {
            "--bytecode"
        } else {
            "--no-bytecode"
        };
        self.imagespec_in(project, "build")
            .args(["--builder", "native", "--progress", "quiet", bytecode])
            .arg("--registry")
            .arg(self.registry.name())
    }

    /// Builds the project's image and pushes it.
    pub(super) fn build(&self) -> Result<(), Error> {
        self.building(&self.project).stdout().map(drop)
    }

    /// Builds the project's image in an engine and leaves it there, with a label that it has not had before: every step
    /// that the engine knows is taken from its cache.
    pub(super) fn build_in(&self, host: &str, label: &str) -> Result<(), Error> {
        let build = self.imagespec("build").env("DOCKER_HOST", host);
        let build = build.args(["--builder", "default", "--output", "docker"]);
        let build = build.args(["--option", "network=host", "--progress", "quiet"]);
        build.args(["--label", label]).stdout().map(drop)
    }

    /// Writes the project's Dockerfile and its context into a new folder, from `base` on.
    pub(super) fn write_dockerfile(&self, folder: &Path, base: &str) -> Result<(), Error> {
        let plan = self.imagespec("plan").arg("--write").arg(folder);
        plan.args(["--builder", "default"]).silent().run()?;
        // Its own base is made of layers in the context, which would be sent and looked through.
        fs_err::remove_dir_all(folder.join(".imagespec/base"))?;
        let path = folder.join("Dockerfile");
        let text = fs_err::read_to_string(&path)?;
        let after = text.find("USER 0:0").map_or("", |at| &text[at..]);
        fs_err::write(path, format!("FROM {base}\n{after}"))?;
        Ok(())
    }

    /// As [`Place::build`], and what it told.
    pub(super) fn build_told(&self) -> Result<Told, Error> {
        let text = self.building(&self.project).arg("--json").stdout()?;
        let document: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let image = &document["images"][0];
        Ok(Told {
            size: image["size"].as_u64().unwrap_or_default(),
            pushed: image["pushed_bytes"].as_u64().unwrap_or_default(),
        })
    }

    /// Puts the base, and nothing else, into cache and registry, and answers its name there.
    pub(super) fn base(&self) -> Result<String, Error> {
        let folder = self.cache.with_file_name("base");
        fs_err::create_dir_all(&folder)?;
        fs_err::write(
            folder.join("imagespec.toml"),
            "[images.base]\npython_version = \"3.11\"\n",
        )?;
        self.building(&folder).stdout()
    }

    /// The most memory, in bytes, that `imagespec` itself held during a build (`VmHWM` of `proc_pid_status(5)`).
    pub(super) fn peak(&self) -> Result<u64, Error> {
        let mut child = self
            .building(&self.project)
            .silent()
            .start_in_background()?;
        let status = PathBuf::from(format!("/proc/{}/status", child.id()));
        let mut peak = 0;
        while child.try_wait()?.is_none() {
            let text = fs_err::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
            peak = peak.max(kilobytes.unwrap_or(0_u64) * 1024);
            std::thread::sleep(Duration::from_millis(5));
        }
        if child.wait()?.success() {
            return Ok(peak);
        }
        Err(Error::Failed {
            command: "imagespec build".to_owned(),
        })
    }
}
