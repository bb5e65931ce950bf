//! The database: `SQLite` for one service, `PostgreSQL` for several that share the work. Statements are written so
//! that both take them; where they cannot, both are written.

use std::time::Duration;

use imagespec_core::error::BuildError;
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool, Connection as _, Executor as _, Row as _};

/// How many connections there are at most.
const CONNECTIONS: u32 = 16;
/// How long a connection is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What brings an older database to each version of its tables.
const VERSIONS: [&[&str]; 1] = [&[
    "CREATE TABLE tokens (id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, name TEXT NOT NULL, \
     project TEXT NOT NULL, scope TEXT NOT NULL, created BIGINT NOT NULL)",
    "CREATE TABLE builds (id TEXT PRIMARY KEY, project TEXT NOT NULL, same TEXT NOT NULL, \
     state TEXT NOT NULL, wanted TEXT NOT NULL, image TEXT NOT NULL, reference TEXT NOT NULL, \
     who TEXT NOT NULL, created BIGINT NOT NULL, started BIGINT, ended BIGINT, worker TEXT, \
     lease BIGINT NOT NULL DEFAULT 0, attempts BIGINT NOT NULL DEFAULT 0, \
     stop BIGINT NOT NULL DEFAULT 0, outcome TEXT)",
    "CREATE UNIQUE INDEX builds_open ON builds (project, same) \
     WHERE state = 'queued' OR state = 'running'",
    "CREATE INDEX builds_waiting ON builds (state, created)",
    "CREATE INDEX builds_listed ON builds (project, id)",
    "CREATE TABLE events (build TEXT NOT NULL, number BIGINT NOT NULL, at BIGINT NOT NULL, \
     event TEXT NOT NULL, PRIMARY KEY (build, number))",
]];

/// A database that is ready.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) pool: AnyPool,
    /// Whether others may use it at the same time.
    pub(crate) is_shared: bool,
}

impl Database {
    /// Whether several services may use the database of a URL at the same time.
    pub(crate) fn is_shared(url: &str) -> bool {
        !url.starts_with("sqlite:")
    }

    /// Opens the database of a URL, and brings its tables to this version.
    pub(crate) async fn open(url: &str) -> Result<Self, BuildError> {
        sqlx::any::install_default_drivers();
        let is_shared = Self::is_shared(url);
        let options = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if !is_shared {
                        // What is committed outlives a loss of power.
                        let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                             PRAGMA busy_timeout = 10000;";
                        connection.execute(settings).await?;
                    }
                    Ok(())
                })
            });
        let unopened = |error: sqlx::Error| {
            let error = BuildError::unavailable("cannot open the database").caused_by(&error);
            error.hint("`--database` names it: `sqlite:///var/lib/imagespec/builds.db`, `postgres://host/name`")
        };
        // A pool tries for a while, and says then that it took too long.
        let first = tokio::time::timeout(PATIENCE, AnyConnection::connect(url)).await;
        let first = first.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        let closed = first.map_err(unopened)?.close().await;
        closed.map_err(unopened)?;
        let pool = options.connect(url).await.map_err(unopened)?;
        let database = Self { pool, is_shared };
        database.migrate().await.map_err(|error| failed(&error))?;
        Ok(database)
    }

    async fn migrate(&self) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if self.is_shared {
            // One of several services that start at once does it.
            let alone = "SELECT pg_advisory_xact_lock(7232415)";
            transaction.execute(alone).await?;
        }
        let table = "CREATE TABLE IF NOT EXISTS versions (version BIGINT PRIMARY KEY)";
        transaction.execute(table).await?;
        let row = sqlx::query("SELECT COALESCE(MAX(version), 0) FROM versions")
            .fetch_one(&mut *transaction)
            .await?;
        let done: i64 = row.try_get(0)?;
        for (version, statements) in (1_i64..).zip(VERSIONS) {
            if version <= done {
                continue;
            }
            for statement in statements {
                transaction.execute(*statement).await?;
            }
            sqlx::query("INSERT INTO versions (version) VALUES ($1)")
                .bind(version)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await
    }

    /// Whether it answers.
    pub(crate) async fn is_ready(&self) -> bool {
        sqlx::query("SELECT 1").fetch_one(&self.pool).await.is_ok()
    }
}

/// The error of a database that does not do what it should.
pub(crate) fn failed(error: &sqlx::Error) -> BuildError {
    BuildError::unavailable("the database of the build service fails").caused_by(error)
}
