//! The same image as a Dockerfile: what a person with uv would write.

use std::path::{Path, PathBuf};

use super::super::spec::Spec;
use crate::error::Error;

/// Where Debian has the certificates of authorities.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A folder with a Dockerfile.
#[derive(Debug)]
pub(in crate::bench) struct Context {
    pub(super) folder: PathBuf,
    /// Name of the image.
    pub(super) reference: String,
    /// Whether bytecode is compiled.
    bytecode: bool,
    base: String,
}

impl Context {
    /// An image of a spec over `base`, with a uv that is copied in and the machine's authorities.
    pub(in crate::bench) fn new(
        folder: &Path,
        uv: &Path,
        base: &str,
        reference: &str,
        bytecode: bool,
    ) -> Result<Self, Error> {
        fs_err::create_dir_all(folder.join("src"))?;
        fs_err::copy(uv, folder.join("uv"))?;
        fs_err::copy(AUTHORITIES, folder.join("authorities.crt"))?;
        fs_err::write(folder.join("src/app.py"), "print('app')\n")?;
        Ok(Self {
            folder: folder.to_owned(),
            reference: reference.to_owned(),
            bytecode,
            base: base.to_owned(),
        })
    }

    /// Writes the Dockerfile, with or without a cache that outlives the build, and the requirements: as they are
    /// declared, or as they are locked.
    pub(in crate::bench) fn write(&self, requirements: &str, mounts: bool) -> Result<(), Error> {
        let cache = if mounts {
            "--mount=type=cache,target=/root/.cache/uv "
        } else {
            ""
        };
        let compile = if self.bytecode {
            " --compile-bytecode"
        } else {
            ""
        };
        let text = format!(
            "FROM {}\nUSER root\nCOPY uv /usr/local/bin/uv\nCOPY authorities.crt /tmp/authorities.crt\n\
             COPY requirements.txt /tmp/requirements.txt\n\
             RUN {cache}SSL_CERT_FILE=/tmp/authorities.crt UV_LINK_MODE=copy \
             uv pip install --no-build{compile} --python /opt/venv -r /tmp/requirements.txt\nCOPY src /root\n",
            self.base
        );
        fs_err::write(self.folder.join("Dockerfile"), text)?;
        fs_err::write(self.folder.join("requirements.txt"), requirements)?;
        Ok(())
    }

    /// Changes the one source file.
    pub(in crate::bench) fn edit(&self, round: u32) -> Result<(), Error> {
        let text = format!("print({round})\n");
        Ok(fs_err::write(self.folder.join("src/app.py"), text)?)
    }

    /// A Dockerfile that needs the base and nothing else, in a folder of its own.
    pub(super) fn base_only(&self) -> Result<PathBuf, Error> {
        let folder = self.folder.with_extension("base");
        fs_err::create_dir_all(&folder)?;
        let text = format!("FROM {}\nUSER root\nRUN true\n", self.base);
        fs_err::write(folder.join("Dockerfile"), text)?;
        Ok(folder)
    }
}

/// What `requirements.txt` says of a spec.
pub(in crate::bench) fn declared(spec: &Spec, added: usize) -> String {
    let lines: Vec<_> = spec.packages(added).collect();
    lines.join("\n") + "\n"
}
