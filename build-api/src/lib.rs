//! What the build service and its clients say to each other: JSON over HTTP, below `/v1`.
//!
//! Both sides name the version that they speak in [`VERSION_HEADER`]. A request without it is taken to be of the
//! service's own version. An answer that is no success is a [`Failure`].

use std::collections::BTreeMap;

use imagespec_core::builder::BuiltImage;
use imagespec_core::context::{BuildSettings, Destination};
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::event::BuildEvent;
use imagespec_core::plan::BuildPlan;
use serde::{Deserialize, Serialize};

/// The version that is spoken here. It grows when one side would misunderstand the other.
pub const VERSION: u32 = 1;
/// Names the version of a request and of an answer.
pub const VERSION_HEADER: &str = "imagespec-api";
/// Where a file that was broken off goes on, in bytes.
pub const OFFSET_HEADER: &str = "upload-offset";
/// The project of whoever may work in several.
pub const PROJECT_HEADER: &str = "imagespec-project";
/// The project of whoever names none.
pub const DEFAULT_PROJECT: &str = "default";
/// The most bytes of one file in a pack.
pub const PACKED: u64 = 256 << 10;
/// The most bytes of a pack.
pub const PACK: u64 = 16 << 20;
/// The most files that may be asked about at once.
pub const ASKED: usize = 10_000;

/// A request that was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Failure {
    /// Why: `kind`, `message`, and where there is more to say `field`, `hints` and `source`.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub error: BuildError,
}

/// Which service it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Version {
    /// The oldest version of the API that it speaks.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
    /// Its own version.
    pub service: String,
    /// What its builder can do, by the names of capabilities.
    pub capabilities: Vec<String>,
}

/// Files of a build context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Digests of their contents.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<DigestText>, max_items = 10000))]
    pub files: Vec<Digest>,
}

/// The digest of a content: `sha256:` and 64 hexadecimal digits.
#[cfg(feature = "schema")]
#[derive(utoipa::ToSchema)]
#[schema(as = Digest, value_type = String, pattern = "^sha256:[0-9a-f]{64}$")]
#[expect(dead_code, reason = "it stands for the core's digest in the document")]
struct DigestText(String);

/// Asks for an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// What the person calls the image.
    pub image: String,
    /// What the image is.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub plan: BuildPlan,
    /// What it will be called.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub destination: Destination,
    /// The image it starts from, where that is one that was built before.
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    #[serde(default)]
    pub base: Option<BuiltImage>,
    /// How it is built.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub settings: BuildSettings,
    /// Secrets of the project that the installation of Python packages may read: the name under which the service has
    /// each, and where the installation finds it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
}

/// A build that was taken on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Accepted {
    /// The build.
    pub id: String,
    /// Whether nobody had asked for the same before.
    pub created: bool,
}

/// Where a build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for a worker.
    Queued,
    /// A worker has it.
    Running,
    /// The image is there.
    Done,
    /// It went wrong.
    Failed,
    /// Somebody stopped it.
    Cancelled,
}

impl State {
    /// The name it has in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of a name.
    pub fn of(name: &str) -> Option<Self> {
        let all = [
            Self::Queued,
            Self::Running,
            Self::Done,
            Self::Failed,
            Self::Cancelled,
        ];
        all.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing more happens.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Build {
    /// Its id.
    pub id: String,
    /// The project it belongs to.
    pub project: String,
    /// Where it is.
    pub state: State,
    /// What the person calls the image.
    pub image: String,
    /// `[registry/]name:tag`.
    pub reference: String,
    /// Name of the token that asked for it.
    pub who: String,
    /// When it was asked for, in milliseconds since 1970.
    pub created: i64,
    /// When a worker first took it on.
    pub started: Option<i64>,
    /// When it ended.
    pub ended: Option<i64>,
    /// How many workers took it on: more than one where a worker was lost.
    pub attempts: i64,
    /// What became of it, at its end.
    pub outcome: Option<Outcome>,
}

/// What became of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The image.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    Image(Box<BuiltImage>),
    /// Why there is none.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    Error(BuildError),
}

/// Builds, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Builds {
    /// The builds.
    pub builds: Vec<Build>,
    /// `before` of the next page, where there is one.
    pub next: Option<String>,
}

/// Something that happened in a build: the data of an event `build`, whose id is its number. An event `end` with a
/// [`Build`] is the last of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What.
    #[serde(flatten)]
    pub event: BuildEvent,
}

/// Whether an image is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Found {
    /// The image, if it is.
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub image: Option<BuiltImage>,
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// See builds and images.
    Read,
    /// Build, too.
    Build,
    /// Make and revoke tokens, too.
    Admin,
}

impl Scope {
    /// The name it has in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Build => "build",
            Self::Admin => "admin",
        }
    }

    /// The scope of a name.
    pub fn of(name: &str) -> Option<Self> {
        let all = [Self::Read, Self::Build, Self::Admin];
        all.into_iter().find(|scope| scope.name() == name)
    }
}

/// Asks for a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Whose it is: what builds say of who asked.
    #[cfg_attr(
        feature = "schema",
        schema(min_length = 1, max_length = 100, pattern = "^[!-~]+( [!-~]+)*$")
    )]
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    /// The project it is for: `*` for all; the asker's own where that is one.
    #[serde(default)]
    pub project: Option<String>,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Token {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// The project it is for; `*` for all.
    pub project: String,
    /// What it allows.
    pub scope: Scope,
    /// When it was made, in milliseconds since 1970.
    pub created: i64,
}

/// A token that was made now.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MadeToken {
    /// What is known of it.
    pub token: Token,
    /// The secret: shown once, and kept by nobody.
    pub secret: String,
}

impl std::fmt::Debug for MadeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeToken")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// Tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Tokens {
    /// The tokens.
    pub tokens: Vec<Token>,
}
