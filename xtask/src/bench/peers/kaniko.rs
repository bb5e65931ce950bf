//! Kaniko's executor, in a container of an engine.

use std::path::Path;

use super::{Builder, Context, Docker};
use crate::error::Error;
use crate::tools;
use crate::workspace::Workspace;

const IMAGE: &str = "kaniko";

/// The executor as an image of an engine.
#[derive(Debug)]
pub(in crate::bench) struct Kaniko {
    engine: Docker,
}

impl Kaniko {
    pub(in crate::bench) fn start(workspace: &Workspace, folder: &Path) -> Result<Self, Error> {
        let programs = tools::Go::new(workspace).find(tools::KANIKO)?;
        let engine = Docker::start(&folder.join("engine"))?;
        let image = folder.join("image");
        fs_err::create_dir_all(&image)?;
        fs_err::copy(programs.join("executor"), image.join("executor"))?;
        let text = "FROM scratch\nCOPY executor /kaniko/executor\nENV PATH=/usr/local/bin:/usr/bin:/bin:/kaniko\n\
                    ENTRYPOINT [\"/kaniko/executor\"]\n";
        fs_err::write(image.join("Dockerfile"), text)?;
        engine.build_folder(&image, IMAGE)?;
        Ok(Self { engine })
    }
}

impl Builder for Kaniko {
    fn name(&self) -> &'static str {
        "kaniko"
    }

    fn build(&self, context: &Context) -> Result<(), Error> {
        let mount = format!("{}:/workspace:ro", context.folder.display());
        self.engine
            .docker("run")
            .args(["--rm", "--network", "host", "--volume", &mount, IMAGE])
            .args([
                "--context",
                "dir:///workspace",
                "--insecure",
                "--destination",
            ])
            .arg(&context.reference)
            .silent()
            .run()
    }

    /// Every build is in a new container.
    fn forget(&self, _context: &Context) -> Result<(), Error> {
        Ok(())
    }

    fn remembers(&self) -> bool {
        false
    }
}
