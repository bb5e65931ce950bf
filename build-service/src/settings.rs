//! How a service is set up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use imagespec_core::error::BuildError;
use serde::Deserialize;
use serde_json::{Map, Value};

/// How a service is set up: the file of `imagespec serve --config`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// URL of its database; one of its own in `data` where there is none.
    pub database: Option<String>,
    /// The folder of what it keeps.
    pub data: Option<PathBuf>,
    /// URL of an object store with the files of build contexts, for services that share no folder: `s3://bucket/path`.
    pub files: Option<String>,
    /// The builder that does the work.
    pub builder: String,
    /// Options of that builder.
    pub options: Map<String, Value>,
    /// How many builds it does at once.
    pub workers: usize,
    /// For how many days it keeps builds that ended, with what happened in them.
    pub keep_builds: u32,
    /// For how many days it keeps files of contexts that nobody uses.
    pub keep_files: u32,
    /// What every project may do that has no settings of its own.
    pub defaults: Limits,
    /// What single projects may do.
    pub projects: BTreeMap<String, Limits>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8484)),
            database: None,
            data: None,
            files: None,
            builder: "native".to_owned(),
            options: Map::new(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            keep_builds: 30,
            keep_files: 7,
            defaults: Limits::default(),
            projects: BTreeMap::new(),
        }
    }
}

/// What a project may do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Registries, or paths in them, that its images may be pushed to and start from: `ghcr.io/acme`.
    pub registries: Vec<String>,
    /// Further images that its images may start from: `docker.io/library`.
    pub bases: Vec<String>,
    /// Package indexes that its images may name. Others get those of the service's machine.
    pub indexes: Vec<String>,
    /// Secrets that its builds may name, and the file that holds each. Python packages are fetched with the logins in
    /// them.
    pub secrets: BTreeMap<String, PathBuf>,
    /// A folder with a `config.json` as Docker has it: the logins at registries for its builds, in place of the service's.
    pub docker_config: Option<PathBuf>,
    /// Whether its people are trusted with the service's machine: their images may go anywhere, and run commands.
    pub trusted: bool,
    /// Whether its images may run commands where the builder walls them off: `native` without a network, and not as root.
    pub commands: bool,
    /// How many of its builds are done at once.
    pub builds: u32,
    /// How many of its builds may wait.
    pub queued: u32,
    /// The most bytes of a build context.
    pub context_bytes: u64,
    /// The most bytes that commands of a build may print and be kept.
    pub log_bytes: u64,
    /// The most seconds that a build may take.
    pub build_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            registries: Vec::new(),
            bases: Vec::new(),
            indexes: Vec::new(),
            secrets: BTreeMap::new(),
            docker_config: None,
            trusted: false,
            commands: false,
            builds: 4,
            queued: 2000,
            context_bytes: 4 << 30,
            log_bytes: 16 << 20,
            build_seconds: 3600,
        }
    }
}

impl Settings {
    /// The settings of a file's text.
    pub fn read(text: &str) -> Result<Self, BuildError> {
        toml::from_str(text).map_err(|error| {
            BuildError::input("the service's settings cannot be read").caused_by(&error)
        })
    }

    /// What a project may do.
    pub fn limits(&self, project: &str) -> &Limits {
        self.projects.get(project).unwrap_or(&self.defaults)
    }
}
