//! Builders that are programs of their own, in any language: `imagespec-builder-NAME` on `PATH`.
//!
//! They are spoken to in lines of JSON, each an object with a `type`: requests on their standard input, answers on their
//! standard output. A process does one thing and ends:
//!
//! 1. [`Request::Hello`] is answered by [`Answer::Hello`], which says what the builder can do;
//! 2. one of [`Request::Probe`], [`Request::Find`], [`Request::Build`] and [`Request::Tag`] is answered by what belongs to
//!    it, a build by any number of [`Answer::Event`]s first.
//!
//! [`Answer::Error`] may stand in place of any answer. When its standard input ends, the builder stops what it does,
//! cleans up and ends; one that does not is killed. What it writes to standard error is shown as log lines.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::builder::{Availability, BuiltImage};
use crate::context::{BuildContext, BuildSettings, Destination, Output, SecretMount};
use crate::error::BuildError;
use crate::event::BuildEvent;
use crate::host::RegistrySettings;
use crate::login::Login;
use crate::plan::BuildPlan;

/// The version of the protocol that is spoken here. It grows when an older builder would misunderstand a request.
pub const VERSION: u32 = 1;
/// What the names of such programs begin with.
pub const PROGRAM: &str = "imagespec-builder-";
/// The longest line, in bytes.
pub const LINE: u64 = 64 << 20;

/// What a builder is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// Who are you, and what can you do?
    Hello(Hello),
    /// Can you work here and now?
    Probe,
    /// Is the image there?
    Find(Box<Task>),
    /// Build and deliver the image.
    Build(Box<Task>),
    /// Give an image that was found its further tags.
    Tag {
        /// The image.
        image: BuiltImage,
        /// Where it is.
        context: Box<TaskContext>,
    },
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest version of the protocol that the asker speaks.
    pub protocol: u32,
    /// Version of the asker.
    pub version: String,
    /// A folder for whatever the builder wants to keep.
    pub cache_dir: PathBuf,
    /// Options of the builder. Those it does not know it refuses.
    #[serde(default)]
    pub options: Map<String, Value>,
    /// Settings of single registries, by host and port.
    #[serde(default)]
    pub registries: BTreeMap<String, RegistrySettings>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What the image is.
    pub plan: BuildPlan,
    /// Where and how it is built.
    pub context: TaskContext,
}

impl Task {
    /// What a builder elsewhere is told of a plan, with what `_F_IMG_ID` is to be in it: only we know the digest of a
    /// plan.
    pub fn of(plan: &BuildPlan, context: TaskContext) -> Self {
        let plan = BuildPlan {
            image_id: Some(plan.image_id()),
            ..plan.clone()
        };
        Self { plan, context }
    }
}

/// Where and how an image is built: a [`BuildContext`] on its way.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskContext {
    /// What the person calls the image.
    pub image: String,
    /// Where the image goes.
    pub output: Output,
    /// What it will be called.
    pub destination: Destination,
    /// A folder with the plan's files, for a build. It is gone when the build ends.
    #[serde(default)]
    pub files: Option<PathBuf>,
    /// The image the plan starts from, where that is one that was built before.
    #[serde(default)]
    pub base: Option<BuiltImage>,
    /// Secret files for the installation of packages.
    #[serde(default)]
    pub secrets: Vec<TaskSecret>,
    /// Logins of package indexes.
    #[serde(default)]
    pub logins: Vec<TaskLogin>,
    /// How the image is built.
    pub settings: BuildSettings,
}

impl TaskContext {
    /// What a builder elsewhere is told of a context, with its files in a folder.
    pub fn of(cx: &BuildContext<'_>, files: Option<PathBuf>) -> Self {
        let secret = |secret: &SecretMount| TaskSecret {
            source: secret.source.clone(),
            target: secret.target.clone(),
        };
        let login = |login: &Login| TaskLogin {
            url: login.url.clone(),
            user: login.user.clone(),
            password: login.password.clone(),
        };
        Self {
            image: cx.progress.image().to_owned(),
            output: cx.output.clone(),
            destination: cx.destination.clone(),
            files,
            base: cx.base.cloned(),
            secrets: cx.secrets.iter().map(secret).collect(),
            logins: cx.logins.iter().map(login).collect(),
            settings: cx.settings.clone(),
        }
    }
}

impl std::fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskContext")
            .field("image", &self.image)
            .field("output", &self.output)
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}

/// A secret file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSecret {
    /// The file on this machine.
    pub source: PathBuf,
    /// Where the installation of packages finds it.
    pub target: PathBuf,
}

/// A login that stood in a URL of the declaration.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLogin {
    /// The URL, without it.
    pub url: String,
    /// The user, percent-encoded.
    pub user: String,
    /// The password, percent-encoded.
    #[serde(default)]
    pub password: Option<String>,
}

impl std::fmt::Debug for TaskLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskLogin")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// What a builder answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Hello`].
    Hello(Card),
    /// To [`Request::Probe`].
    Availability {
        /// Whether it can work.
        availability: Availability,
    },
    /// To [`Request::Find`].
    Found {
        /// The image, if it is there.
        image: Option<BuiltImage>,
    },
    /// Something happened in a build.
    Event {
        /// What.
        event: BuildEvent,
    },
    /// To [`Request::Build`].
    Built {
        /// The image.
        image: BuiltImage,
    },
    /// To [`Request::Tag`].
    Tagged,
    /// It went wrong.
    Error {
        /// Why.
        error: BuildError,
    },
}

/// How a builder presents itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The version of the protocol that it goes on with: no newer than the asker's.
    pub protocol: u32,
    /// A few words on where and how it builds.
    pub summary: String,
    /// The names of its [`Capability`](crate::builder::Capability)s. Names that the asker does not know mean nothing.
    pub capabilities: Vec<String>,
    /// Where images without a registry go when nobody says.
    #[serde(default = "store")]
    pub local_output: Output,
}

fn store() -> Output {
    Output::Store
}
