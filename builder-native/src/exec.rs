//! Running a command in a finished image, as a container would.

use std::path::PathBuf;

use imagespec_core::contract::{USER, USER_HOME, USER_ID};
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_oci::image::Image;
use imagespec_oci::images::ImageStore;
use imagespec_sandbox::{Job, Mount};

use crate::accounts;
use crate::assemble::environment;
use crate::run::snapshots;

/// What is run, and in which image of the local store.
#[derive(Debug, Clone)]
pub struct Execution {
    /// Name of the image in the local store.
    pub reference: String,
    /// Program and arguments; empty for the image's own.
    pub command: Vec<String>,
    /// The person's terminal type, for programs that draw.
    pub term: Option<String>,
    /// Files and folders of this machine that the command sees, and cannot change.
    pub lent: Vec<Lent>,
}

/// A file or folder of this machine that a command sees.
#[derive(Debug, Clone)]
pub struct Lent {
    /// Where it is.
    pub source: PathBuf,
    /// Where the command sees it.
    pub target: PathBuf,
}

/// The largest file of users that is read, in bytes.
const PASSWD: u64 = 1 << 20;

/// Runs a command with the caller's terminal, as the image's user, with its environment and working directory,
/// and returns its exit code. What it changes is gone afterwards.
pub async fn execute(host: &Host, execution: &Execution) -> Result<u8, BuildError> {
    let store = ImageStore::open(&host.cache_dir);
    let missing = || {
        BuildError::input(format!(
            "the image is not in the local store: `{}`",
            execution.reference
        ))
        .hint("build it with `--output store`")
    };
    let record = store
        .find(&execution.reference)
        .map_err(|error| crate::layers::store_error(&error))?
        .ok_or_else(missing)?;
    let platform = Platform::host();
    let image =
        Image::read(store.blobs(), &record.descriptor.digest, &platform).map_err(|error| {
            BuildError::input(format!(
                "the image does not run on this machine: `{}`",
                execution.reference
            ))
            .caused_by(&error)
        })?;
    if image.platform != platform {
        return Err(BuildError::input(format!(
            "the image is for `{}`, and this machine is `{platform}`",
            image.platform
        )));
    }
    let tier = imagespec_sandbox::tier(host)
        .await
        .map_err(imagespec_sandbox::Error::from)?;
    let own = || {
        image
            .runtime
            .entrypoint
            .iter()
            .chain(&image.runtime.cmd)
            .flatten()
            .cloned()
            .collect()
    };
    let argv: Vec<String> = if execution.command.is_empty() {
        own()
    } else {
        execution.command.clone()
    };
    let folders = snapshots(&store, &host.cache_dir, &image.layers, tier).await?;
    let (uid, gid) = match image.runtime.user.as_str() {
        USER => user_of(&folders)?,
        user => {
            let mut ids = user.splitn(2, ':').map(|id| id.parse().ok());
            let uid = ids.next().flatten().unwrap_or(0);
            (uid, ids.next().flatten().unwrap_or(uid))
        }
    };
    let mut env = environment(&image.runtime);
    env.entry("HOME".to_owned()).or_insert_with(|| {
        if uid == 0 {
            "/root".to_owned()
        } else {
            USER_HOME.to_owned()
        }
    });
    if let Some(term) = &execution.term {
        env.entry("TERM".to_owned()).or_insert_with(|| term.clone());
    }
    let cwd = if image.runtime.working_dir.is_empty() {
        "/"
    } else {
        &image.runtime.working_dir
    };
    let lent = execution.lent.iter().cloned();
    let lent = lent.map(|Lent { source, target }| Mount {
        source,
        target,
        writable: false,
    });
    let job = Job {
        env: env.into_iter().collect(),
        cwd: PathBuf::from(cwd),
        uid,
        gid,
        hostname: "imagespec".to_owned(),
        mounts: lent.collect(),
        ..Job::new(folders, argv)
    };
    Ok(imagespec_sandbox::exec(host, &job, tier).await?)
}

/// Ids of the user of images in unpacked layers, base first.
fn user_of(layers: &[PathBuf]) -> Result<(u32, u32), BuildError> {
    let files = layers.iter().rev().map(|layer| layer.join("etc/passwd"));
    let found = files
        .filter_map(|file| {
            fs_err::symlink_metadata(&file)
                .ok()
                .map(|kind| (file, kind))
        })
        .find(|(_, kind)| kind.is_file() && kind.len() <= PASSWD)
        .and_then(|(file, _)| fs_err::read(file).ok());
    let text = String::from_utf8_lossy(&found.unwrap_or_default()).into_owned();
    Ok(accounts::ids(&text)?.unwrap_or((USER_ID, USER_ID)))
}
