//! Inside the pod: what this program does as executor `native`. It reads its assignment, builds, and answers in lines of
//! JSON as a builder that is a program of its own does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use imagespec_core::builder::BuilderConfig;
use imagespec_core::error::BuildError;
use imagespec_core::event::BuildEvent;
use imagespec_core::host::Host;
use imagespec_core::protocol::{Answer, Request};
use imagespec_core::registry::Registry;
use imagespec_core::serve::{answer, perform};
use serde::de::DeserializeOwned;
use serde_json::Map;
use tokio_util::sync::CancellationToken;

use crate::assignment::{ASSIGNMENT, Assignment, BUILDER, CUT_SHORT, VERSION, lent};
use crate::memory::Memory;
use crate::program::HOME;

/// The most bytes that a context unpacks to: a bound on what a small archive may become.
const LARGEST: u64 = 1 << 40;
/// Where a pod says how it ended.
const LAST_WORDS: &str = "/dev/termination-log";

/// Where an executor finds what it needs.
#[derive(Debug)]
pub struct Inside {
    /// The archive with the context, or standard input.
    pub context: Option<PathBuf>,
    /// The folder with what the build is lent.
    pub lent: PathBuf,
    /// A folder to write to, which nobody else does.
    pub work: PathBuf,
}

/// Copies the files of a program from its image to a folder that other containers have, too.
pub fn bring(from: &Path, to: &Path) -> Result<(), BuildError> {
    let copied = || -> io::Result<()> {
        for folder in fs_err::read_dir(from)? {
            let folder = folder?;
            let target = to.join(folder.file_name());
            fs_err::create_dir_all(&target)?;
            for file in fs_err::read_dir(folder.path())? {
                let file = file?;
                fs_err::copy(file.path(), target.join(file.file_name()))?;
            }
        }
        Ok(())
    };
    copied().map_err(|error| BuildError::failed("cannot bring the program").caused_by(&error))
}

/// Does what an assignment says, and answers on standard output. Says whether it went well.
pub async fn execute(
    inside: &Inside,
    registry: &Registry,
    host: Host,
    cancel: CancellationToken,
) -> bool {
    let done = inside.build(registry, host, cancel).await;
    if let Ok(Answer::Built { image }) = &done
        && let Some(digest) = image.digest
    {
        // Where there is no pod, there is nobody to read it.
        let _ = fs_err::write(LAST_WORDS, digest.to_string());
    }
    let went_well = done.is_ok();
    let said = done.unwrap_or_else(|error| Answer::Error { error });
    answer(&said).is_ok() && went_well
}

impl Inside {
    async fn build(
        &self,
        registry: &Registry,
        mut host: Host,
        cancel: CancellationToken,
    ) -> Result<Answer, BuildError> {
        let files = self.work.join("context");
        let home = self.work.join("home");
        tokio::task::block_in_place(|| self.unpack(&files))?;
        let Assignment {
            version,
            memory,
            mut task,
        } = read(&files.join(ASSIGNMENT))?.ok_or_else(|| {
            BuildError::input("the build context has no assignment for this executor")
        })?;
        if version != VERSION {
            return Err(BuildError::input(format!(
                "the executor's image speaks version {VERSION} of assignments, and this one is of version {version}"
            ))
            .field("builder_options")
            .hint("leave option `image` out, or name an image of the same version"));
        }
        task.context.files = Some(files);
        task.context.logins = self.lent(lent::LOGINS)?.unwrap_or_default();
        self.settle(&home, lent::NETRC, ".netrc")?;
        self.settle(&home, lent::CONFIGURATION, ".config/uv/uv.toml")?;
        let variables: Option<BTreeMap<_, _>> = self.lent(lent::VARIABLES)?;
        host.variables.extend(variables.unwrap_or_default());
        host.registries = self.lent(lent::REGISTRIES)?.unwrap_or_default();
        host.home = Some(home);
        host.contained = true;
        let path = host.variables.entry("PATH".to_owned()).or_default();
        *path = format!("{path}:{HOME}/bin");
        let entry = registry.get(BUILDER)?;
        let builder = (entry.create)(BuilderConfig {
            name: entry.name,
            host: &host,
            options: &Map::new(),
        })?;
        let memory = memory.map(|repository| Memory::open(&host, &repository, &cancel));
        let memory = memory.transpose()?;
        let mut known = BTreeSet::new();
        if let Some(memory) = &memory {
            let recalled = memory.recall().await;
            notice(recalled, "nothing is remembered of other builds");
            known = memory.known();
        }
        let done = perform(&*builder, Request::Build(Box::new(task)), cancel.clone()).await;
        if let (Some(memory), Ok(_)) = (&memory, &done) {
            let kept = memory.keep(&known).await;
            notice(kept, "nothing of this build is remembered");
        }
        done
    }

    /// Unpacks the context.
    fn unpack(&self, to: &Path) -> Result<(), BuildError> {
        let unpacked = || -> io::Result<()> {
            fs_err::create_dir_all(to)?;
            let from: Box<dyn Read> = match &self.context {
                Some(file) => Box::new(fs_err::File::open(file)?),
                None => Box::new(io::stdin().lock()),
            };
            let mut archive = tar::Archive::new(GzDecoder::new(from).take(LARGEST));
            archive.set_preserve_permissions(false);
            archive.unpack(to)?;
            // What broke off after the last file lacks the end of the compressed stream.
            io::copy(&mut archive.into_inner(), &mut io::sink())?;
            Ok(())
        };
        unpacked().map_err(|error| BuildError::unavailable(CUT_SHORT).caused_by(&error))
    }

    fn lent<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, BuildError> {
        read(&self.lent.join(name))
    }

    /// Brings something that is lent to where programs look for it at home.
    fn settle(&self, home: &Path, name: &str, path: &str) -> Result<(), BuildError> {
        let (from, to) = (self.lent.join(name), home.join(path));
        let settled = || -> io::Result<()> {
            if let Some(parent) = to.parent() {
                fs_err::create_dir_all(parent)?;
            }
            if from.is_file() {
                fs_err::copy(&from, &to)?;
            }
            Ok(())
        };
        settled().map_err(|error| BuildError::failed("cannot prepare the build").caused_by(&error))
    }
}

/// Tells of what went wrong and is no reason to fail.
fn notice(done: Result<(), BuildError>, what: &str) {
    if let Err(error) = done {
        let cause = error.source.as_ref();
        let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
        let message = format!("{what}: {}{cause}", error.message);
        let event = BuildEvent::Notice { message };
        // Nobody listens any more, then.
        let _ = answer(&Answer::Event { event });
    }
}

/// What a file says, if it is there.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, BuildError> {
    let wrong = |error: &(dyn std::error::Error + 'static)| {
        let message = format!(
            "cannot read what the executor is given: `{}`",
            path.display()
        );
        BuildError::failed(message).caused_by(error)
    };
    let text = match fs_err::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&error)),
    };
    let value = serde_json::from_slice(&text);
    value.map(Some).map_err(|error| wrong(&error))
}
