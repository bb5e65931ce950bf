//! A plan as a Dockerfile for whoever wants to go on without this program.

use std::io;
use std::path::{Path, PathBuf};

use imagespec_core::context::{BuildContext, write_files};
use imagespec_core::dockerfile::{Start, TOOLS, secret};
use imagespec_core::error::BuildError;
use imagespec_core::plan::BuildPlan;

use crate::lower::{self, Lowered, Site, lower};

/// The text of a plan's Dockerfile, over an image of this reference.
pub fn print(
    site: Site<'_>,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    base: &str,
) -> Result<String, BuildError> {
    let settings = lower::settings(site.host, plan, cx)?;
    let file = lower::dockerfile(site, plan, cx, Start::Image(base), settings.as_ref())?;
    Ok(file.text)
}

/// What a written Dockerfile starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// An image that everybody can have.
    Image(String),
    /// Layers of our own base: compressed archives of this machine.
    Layers(Vec<PathBuf>),
}

/// Writes a plan's Dockerfile and its build context into a folder, which appears only when it is complete. The
/// machine's indexes, package sources and authorities are in the context, and nothing of them in what is built; its
/// logins are not.
pub async fn write(
    site: Site<'_>,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    base: &Base,
    folder: &Path,
) -> Result<(), BuildError> {
    let names: Vec<_> = match base {
        Base::Image(_) => Vec::new(),
        Base::Layers(layers) => (0..layers.len())
            .map(|number| format!("{TOOLS}/base/{number:02}.tar.gz"))
            .collect(),
    };
    let start = match base {
        Base::Image(reference) => Start::Image(reference),
        Base::Layers(_) => Start::Layers(&names),
    };
    let lowered = lower(site, plan, cx, start).await?;
    let Lowered {
        mut tree, secrets, ..
    } = lowered;
    for (id, name) in secret::PUBLIC {
        if let Some(content) = secrets.get(id) {
            tree.add(&format!("{TOOLS}/bin/{name}"), content, false);
        }
    }
    if let Base::Layers(layers) = base {
        for (name, layer) in names.iter().zip(layers) {
            let added = tree.add_file(name, layer.clone());
            added.map_err(|error| unwritten(folder, &error))?;
        }
    }
    let parent = folder
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let fill = || -> io::Result<()> {
        if fs_err::symlink_metadata(folder).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs_err::create_dir_all(parent)?;
        let work = tempfile::Builder::new()
            .prefix(".imagespec-")
            .tempdir_in(parent)?;
        write_files(&plan.files, cx.files, work.path())?;
        for (path, file) in tree.own() {
            let to = work.path().join(path);
            fs_err::create_dir_all(to.parent().unwrap_or(parent))?;
            io::copy(&mut file.open()?, &mut fs_err::File::create_new(&to)?)?;
            if file.executable {
                open_to_all(&to)?;
            }
        }
        open_to_all(work.path())?;
        fs_err::rename(work.path(), folder)?;
        // It has another name now, so there is nothing to remove.
        let _ = work.keep();
        Ok(())
    };
    tokio::task::block_in_place(fill).map_err(|error| unwritten(folder, &error))
}

/// Lets everybody read a folder, or read and run a program.
fn open_to_all(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    fs_err::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

fn unwritten(folder: &Path, error: &io::Error) -> BuildError {
    let folder = folder.display();
    let message = format!("cannot write the Dockerfile's context into `{folder}`");
    BuildError::unwritten(message, "write", error)
}
