//! The service: what its parts share.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::serve::ListenerExt as _;
use imagespec_build_api::MadeToken;
use imagespec_core::builder::BuilderConfig;
use imagespec_core::error::BuildError;
use imagespec_core::execute::Candidate;
use imagespec_core::host::Host;
use imagespec_core::registry::Registry;
use serde_json::Map;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::now;
use crate::database::{Database, failed};
use crate::files::Files;
use crate::settings::{Limits, Settings};
use crate::{api, builds, tokens, worker};

/// How often what nobody needs any more is removed.
const COLLECTION: Duration = Duration::from_hours(1);
/// A day, in milliseconds.
const DAY: i64 = 86_400_000;
/// How long workers may take to give back what they have.
const GRACE: Duration = Duration::from_secs(15);
/// The file that says that a service has the folder.
const LOCK: &str = "lock";

/// What the parts of a service share.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) settings: Settings,
    pub(crate) database: Database,
    pub(crate) files: Files,
    /// The builders of projects with settings of their own, and of others.
    own: BTreeMap<String, Builders>,
    others: Builders,
    /// Wakes a worker.
    pub(crate) work: Notify,
    /// Whoever looks for work.
    pub(crate) taking: tokio::sync::Mutex<()>,
    /// Whoever follows a build, by its id.
    followed: Mutex<HashMap<String, Arc<Notify>>>,
    /// Fires when the service is to end.
    pub(crate) ending: CancellationToken,
}

/// Who does the work.
#[derive(Debug, Clone)]
pub(crate) struct Builders {
    pub(crate) builder: Candidate,
    pub(crate) base_maker: Option<Candidate>,
}

impl Builders {
    fn find(registry: &Registry, host: &Host, settings: &Settings) -> Result<Self, BuildError> {
        let entry = registry.get(&settings.builder)?;
        let make = |name: &str, options: &Map<_, _>| -> Result<Candidate, BuildError> {
            let entry = registry.get(name)?;
            let builder = (entry.create)(BuilderConfig {
                name: entry.name,
                host,
                options,
            })?;
            Ok(Candidate {
                name: entry.name,
                builder,
            })
        };
        let base_maker = entry.base_maker.map(|name| make(name, &Map::new()));
        Ok(Self {
            builder: make(entry.name, &settings.options)?,
            base_maker: base_maker.transpose()?,
        })
    }
}

impl Service {
    /// Who builds for a project.
    pub(crate) fn builders(&self, project: &str) -> &Builders {
        self.own.get(project).unwrap_or(&self.others)
    }

    /// Whoever follows a build waits for this.
    pub(crate) fn follow(&self, id: &str) -> Arc<Notify> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(followed.entry(id.to_owned()).or_default())
    }

    /// Tells those who follow a build that there is more to see.
    pub(crate) fn happened(&self, id: &str) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = followed.get(id) {
            notify.notify_waiters();
            if Arc::strong_count(notify) == 1 {
                followed.remove(id);
            }
        }
    }
}

/// A service that listens.
#[derive(Debug)]
pub struct Serving {
    /// Where.
    pub address: SocketAddr,
    /// The first token, where there was none: its secret is told nowhere else.
    pub first_token: Option<MadeToken>,
    service: Arc<Service>,
    listener: TcpListener,
    /// Says that the folder is taken, as long as it is open.
    _lock: fs_err::File,
}

impl Serving {
    /// Opens the database and the folder of a service, and listens.
    pub async fn start(
        mut settings: Settings,
        registry: &Registry,
        host: &Host,
    ) -> Result<Self, BuildError> {
        let data = settings.data.take();
        let data = data.unwrap_or_else(|| host.cache_dir.join("service"));
        let unwritten = |error: std::io::Error| {
            let message = format!("cannot keep anything in the folder: `{}`", data.display());
            BuildError::unwritten(message, "data", &error)
        };
        fs_err::create_dir_all(&data).map_err(unwritten)?;
        let keep = Duration::from_secs(u64::from(settings.keep_files) * 86_400);
        let files = Files::open(&data, settings.files.as_deref(), keep, host)?;
        let own = || format!("sqlite://{}?mode=rwc", data.join("builds.db").display());
        let url = settings.database.clone().unwrap_or_else(own);
        let lock = locked(&data, Database::is_shared(&url))?;
        let database = Database::open(&url).await?;
        builds::reclaim(&database)
            .await
            .map_err(|error| failed(&error))?;
        let first_token = tokens::first(&database)
            .await
            .map_err(|error| failed(&error))?;
        let builders = |limits: &Limits| {
            let mut host = Host {
                strangers: !limits.trusted,
                ..host.clone()
            };
            if let Some(folder) = &limits.docker_config {
                let folder = folder.to_string_lossy().into_owned();
                host.variables.insert("DOCKER_CONFIG".to_owned(), folder);
            }
            Builders::find(registry, &host, &settings)
        };
        let own = settings.projects.iter().map(|(project, limits)| {
            let builders = builders(limits);
            let found = builders.map_err(|error| error.context(format!("project `{project}`")))?;
            Ok((project.clone(), found))
        });
        let listen = settings.listen;
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            BuildError::unavailable(format!("cannot listen at `{listen}`"))
                .caused_by(&error)
                .hint("`--listen` names another address")
        })?;
        let address = listener.local_addr().map_err(unwritten)?;
        let service = Service {
            own: own.collect::<Result<_, BuildError>>()?,
            others: builders(&settings.defaults)?,
            settings,
            database,
            files,
            work: Notify::new(),
            taking: tokio::sync::Mutex::default(),
            followed: Mutex::default(),
            ending: CancellationToken::new(),
        };
        Ok(Self {
            address,
            first_token,
            service: Arc::new(service),
            listener,
            _lock: lock,
        })
    }

    /// Serves until `cancel` fires. What is being built then is built by whoever serves next.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), BuildError> {
        let Self {
            service, listener, ..
        } = self;
        let workers = worker::start(&service);
        let collector = tokio::spawn(collect(Arc::clone(&service)));
        let router = api::router(Arc::clone(&service));
        let ending = service.ending.clone();
        let asked = async move {
            cancel.cancelled().await;
            ending.cancel();
        };
        // An event is a few bytes, and must not wait until the last one is acknowledged.
        let listener = listener.tap_io(|stream| {
            // Without it, events come later.
            let _ = stream.set_nodelay(true);
        });
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(asked)
            .await;
        service.ending.cancel();
        let ended = futures::future::join_all(workers);
        // One that takes longer is lost, and its lease with it.
        let _ = tokio::time::timeout(GRACE, ended).await;
        collector.abort();
        service.database.pool.close().await;
        served.map_err(|error| BuildError::unavailable("the service fails").caused_by(&error))
    }
}

/// The lock of a folder: two services in one would take builds from each other, unless they share a database.
fn locked(data: &Path, is_shared: bool) -> Result<fs_err::File, BuildError> {
    let path = data.join(LOCK);
    let taken = || {
        let message = format!("another service has the folder: `{}`", data.display());
        BuildError::unavailable(message).hint("`--data` names another")
    };
    let lock = fs_err::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| BuildError::unwritten("cannot lock the folder", "data", &error))?;
    let file = lock.file();
    let locked = if is_shared {
        file.try_lock_shared()
    } else {
        file.try_lock()
    };
    locked.map_err(|_| taken())?;
    Ok(lock)
}

/// Removes what nobody needs any more, now and then.
async fn collect(service: Arc<Service>) {
    loop {
        let before = now() - i64::from(service.settings.keep_builds) * DAY;
        // What stays goes the next time.
        let _ = builds::forget(&service.database, before).await;
        let _ = service.files.collect().await;
        tokio::time::sleep(COLLECTION).await;
    }
}
