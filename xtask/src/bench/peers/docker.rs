//! Docker's engine, with the `BuildKit` it has in itself.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use super::{Builder, Context};
use crate::command::Program;
use crate::error::Error;

/// An engine in a folder of its own.
#[derive(Debug)]
pub(in crate::bench) struct Docker {
    daemon: Child,
    client: PathBuf,
    host: String,
    /// What containers of the host's network leave mounted.
    network: PathBuf,
}

impl Drop for Docker {
    fn drop(&mut self) {
        super::end(&mut self.daemon);
        if self.network.exists() {
            Program::new("umount").arg(&self.network).succeeds();
        }
    }
}

impl Docker {
    pub(in crate::bench) fn start(folder: &Path) -> Result<Self, Error> {
        fs_err::create_dir_all(folder)?;
        let at = |name: &str| folder.join(name);
        let host = format!("unix://{}", at("sock").display());
        let client = client().ok_or(Error::Missing {
            program: "docker (with BuildKit: 20.10, or with buildx)",
        })?;
        let daemon = Program::new("dockerd")
            .args(["--host", &host, "--data-root"])
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false"])
            .silent()
            .start_in_background()?;
        let engine = Self {
            daemon,
            client,
            host,
            network: at("exec").join("netns/default"),
        };
        super::until(Duration::from_mins(1), "dockerd", || {
            engine.docker("version").succeeds()
        })?;
        Ok(engine)
    }

    /// Where it listens, for `DOCKER_HOST`.
    pub(in crate::bench) fn host(&self) -> &str {
        &self.host
    }

    /// The client with a subcommand.
    pub(super) fn docker(&self, subcommand: &str) -> Program {
        Program::new(&self.client)
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_BUILDKIT", "1")
            .arg(subcommand)
    }

    /// Builds a folder with a label.
    pub(in crate::bench) fn build_labelled(&self, folder: &Path, label: &str) -> Result<(), Error> {
        let build = self.docker("build").args(["--quiet", "--network", "host"]);
        let build = build.args(["--tag", "labelled:1", "--label", label]);
        build.arg(folder).silent().run()
    }

    /// The image of a repository.
    pub(in crate::bench) fn image(&self, repository: &str) -> Result<String, Error> {
        let images = self.docker("images");
        let format = "{{.Repository}}:{{.Tag}}";
        let listed = images.args(["--format", format, repository]).stdout()?;
        Ok(listed.lines().next().unwrap_or_default().to_owned())
    }

    pub(super) fn build_folder(&self, folder: &Path, reference: &str) -> Result<(), Error> {
        self.docker("build")
            .args(["--quiet", "--network", "host", "--tag", reference])
            .arg(folder)
            .silent()
            .run()
    }
}

impl Builder for Docker {
    fn name(&self) -> &'static str {
        "docker build, push"
    }

    fn build(&self, context: &Context) -> Result<(), Error> {
        self.build_folder(&context.folder, &context.reference)?;
        let push = self.docker("push").arg("--quiet");
        push.arg(&context.reference).silent().run()
    }

    fn forget(&self, context: &Context) -> Result<(), Error> {
        for arguments in [
            ["system", "prune", "--all", "--force"],
            ["builder", "prune", "--all", "--force"],
        ] {
            let prune = self.docker(arguments[0]).args(&arguments[1..]);
            prune.silent().run()?;
        }
        self.build_folder(&context.base_only()?, "base")
    }
}

/// A client that can drive the engine's `BuildKit`.
fn client() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let clients = std::env::split_paths(&path).map(|folder| folder.join("docker"));
    clients.filter(|client| client.is_file()).find(|client| {
        let version = Program::new(client).arg("--version").stdout();
        version.is_ok_and(|version| version.contains(" 20.10"))
            || Program::new(client).args(["buildx", "version"]).succeeds()
    })
}
