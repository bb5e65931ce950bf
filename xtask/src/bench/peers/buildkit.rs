//! `BuildKit`'s own daemon.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use super::{Builder, Context};
use crate::command::Program;
use crate::error::Error;
use crate::tools;
use crate::workspace::Workspace;

/// A daemon in a folder of its own.
#[derive(Debug)]
pub(in crate::bench) struct Buildkit {
    daemon: Child,
    client: PathBuf,
    address: String,
}

impl Drop for Buildkit {
    fn drop(&mut self) {
        super::end(&mut self.daemon);
    }
}

impl Buildkit {
    pub(in crate::bench) fn start(workspace: &Workspace, folder: &Path) -> Result<Self, Error> {
        let programs = tools::Go::new(workspace).find(tools::BUILDKIT)?;
        fs_err::create_dir_all(folder)?;
        let address = format!("unix://{}", folder.join("sock").display());
        let daemon = Program::new(programs.join("buildkitd"))
            .args(["--addr", &address, "--root"])
            .arg(folder.join("root"))
            .args(["--oci-worker-net", "host", "--containerd-worker=false"])
            .args(["--allow-insecure-entitlement", "network.host"])
            .silent()
            .start_in_background()?;
        let buildkit = Self {
            daemon,
            client: programs.join("buildctl"),
            address,
        };
        super::until(Duration::from_secs(30), "buildkitd", || {
            buildkit.buildctl().args(["debug", "workers"]).succeeds()
        })?;
        Ok(buildkit)
    }

    fn buildctl(&self) -> Program {
        Program::new(&self.client).args(["--addr", &self.address])
    }

    fn build_folder(&self, folder: &Path, output: Option<&str>) -> Result<(), Error> {
        let output = output.map(|output| ["--output", output]);
        let local = |name: &str| format!("{name}={}", folder.display());
        self.buildctl()
            .args(["build", "--frontend", "dockerfile.v0"])
            .args([
                "--local",
                &local("context"),
                "--local",
                &local("dockerfile"),
            ])
            .args([
                "--opt",
                "force-network-mode=host",
                "--allow",
                "network.host",
            ])
            .args(output.iter().flatten())
            .silent()
            .run()
    }
}

impl Builder for Buildkit {
    fn name(&self) -> &'static str {
        "buildkitd"
    }

    fn build(&self, context: &Context) -> Result<(), Error> {
        let to = &context.reference;
        let output = format!("type=image,name={to},push=true,registry.insecure=true");
        self.build_folder(&context.folder, Some(&output))
    }

    fn forget(&self, context: &Context) -> Result<(), Error> {
        self.buildctl().args(["prune", "--all"]).silent().run()?;
        self.build_folder(&context.base_only()?, None)
    }
}
