//! Builds in the database: the queue, who has what, and what happened. Whatever is answered was committed before.

use imagespec_build_api::{Accepted, Build, Builds, Happened, Outcome, State, Wanted};
use imagespec_core::digest::Framed;
use imagespec_core::error::BuildError;
use imagespec_core::event::BuildEvent;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::clock::{identifier, now};
use crate::database::Database;
use crate::settings::Settings;

/// How long after its end a build still answers whoever asks for the same, in milliseconds: many ask at once, and the
/// last of them after the first was served.
const ECHO: i64 = 60_000;
/// How long a worker has a build that does not tell of itself, in milliseconds.
pub(crate) const LEASE: i64 = 15_000;
/// How many workers may be lost over a build.
const ATTEMPTS: i64 = 5;

/// A build that a worker has taken on.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) id: String,
    pub(crate) project: String,
    pub(crate) wanted: Wanted,
    /// How many workers have had it, this one included.
    pub(crate) attempts: i64,
}

/// What makes two requests the same.
pub(crate) fn sameness(wanted: &Wanted) -> String {
    let mut frame = Framed::new("imagespec build request");
    let settings = &wanted.settings;
    frame
        .digest(&wanted.plan.digest())
        .text(&wanted.destination.reference())
        .text(settings.compression().name())
        .number(u64::from(settings.bytecode()))
        .number(u64::from(settings.force));
    frame.list(&wanted.destination.extra_tags, |frame, tag| {
        frame.text(tag);
    });
    frame.list(&settings.labels, |frame, (name, value)| {
        frame.text(name).text(value);
    });
    frame.list(&wanted.secrets, |frame, (name, target)| {
        frame.text(name).text(target);
    });
    let base = wanted.base.as_ref().and_then(|base| base.digest);
    frame.option(base.as_ref(), |frame, digest| {
        frame.digest(digest);
    });
    frame.finish().to_string()
}

/// Takes a request on, or finds the build of an equal one that is not done yet, or was a moment ago. `None` where as many
/// builds of the project wait as may: `queued`.
pub(crate) async fn accept(
    database: &Database,
    project: &str,
    who: &str,
    wanted: &Wanted,
    queued: u32,
) -> Result<Option<Accepted>, BuildError> {
    let failed = |error: sqlx::Error| crate::database::failed(&error);
    let text = serde_json::to_string(wanted)
        .map_err(|error| BuildError::failed("cannot keep the request").caused_by(&error))?;
    let same = sameness(wanted);
    let recent = if wanted.settings.force {
        i64::MAX
    } else {
        now() - ECHO
    };
    let insert = "INSERT INTO builds \
         (id, project, same, state, wanted, image, reference, who, created) \
         SELECT $1, $2, $3, 'queued', $4, $5, $6, $7, $8 WHERE NOT EXISTS \
         (SELECT 1 FROM builds WHERE project = $2 AND same = $3 AND state = 'done' AND ended > $9) \
         AND (SELECT COUNT(*) FROM builds WHERE project = $2 AND state = 'queued') < $10 \
         ON CONFLICT DO NOTHING RETURNING id";
    let find = "SELECT id FROM builds WHERE project = $1 AND same = $2 AND \
         (state = 'queued' OR state = 'running' OR (state = 'done' AND ended > $3)) \
         ORDER BY id DESC LIMIT 1";
    let waiting = "SELECT COUNT(*) AS number FROM builds WHERE project = $1 AND state = 'queued'";
    loop {
        let id = identifier();
        let made = sqlx::query(insert)
            .bind(id.clone())
            .bind(project.to_owned())
            .bind(same.clone())
            .bind(text.clone())
            .bind(wanted.image.clone())
            .bind(wanted.destination.reference())
            .bind(who.to_owned())
            .bind(now())
            .bind(recent)
            .bind(i64::from(queued))
            .fetch_optional(&database.pool)
            .await
            .map_err(failed)?;
        if made.is_some() {
            return Ok(Some(Accepted { id, created: true }));
        }
        let found = sqlx::query(find)
            .bind(project.to_owned())
            .bind(same.clone())
            .bind(recent)
            .fetch_optional(&database.pool)
            .await
            .map_err(failed)?;
        // One that ended badly in the meantime makes room for another.
        if let Some(row) = found {
            let id = row.try_get("id").map_err(failed)?;
            return Ok(Some(Accepted { id, created: false }));
        }
        let row = sqlx::query(waiting)
            .bind(project.to_owned())
            .fetch_one(&database.pool)
            .await
            .map_err(failed)?;
        let number: i64 = row.try_get("number").map_err(failed)?;
        if number >= i64::from(queued) {
            return Ok(None);
        }
    }
}

const COLUMNS: &str = "SELECT id, project, state, image, reference, who, created, started, ended, \
     attempts, outcome FROM builds ";

/// A build of a project.
pub(crate) async fn find(
    database: &Database,
    project: &str,
    id: &str,
) -> Result<Option<Build>, sqlx::Error> {
    let one = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE id = $1 AND project = $2"));
    let row = sqlx::query(one)
        .bind(id.to_owned())
        .bind(project.to_owned())
        .fetch_optional(&database.pool)
        .await?;
    row.as_ref().map(read).transpose()
}

/// What was asked for.
pub(crate) async fn wanted(
    database: &Database,
    project: &str,
    id: &str,
) -> Result<Option<Wanted>, sqlx::Error> {
    let row = sqlx::query("SELECT wanted FROM builds WHERE id = $1 AND project = $2")
        .bind(id.to_owned())
        .bind(project.to_owned())
        .fetch_optional(&database.pool)
        .await?;
    let read = |row: AnyRow| {
        let text: String = row.try_get("wanted")?;
        parsed(&text)
    };
    row.map(read).transpose()
}

/// Builds of a project, newest first: those before one, of a state, with a text in the image's name.
pub(crate) async fn list(
    database: &Database,
    project: &str,
    query: &Query,
) -> Result<Builds, sqlx::Error> {
    let limit = query.limit.unwrap_or(50).clamp(1, 200);
    let some = sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE project = $1 AND ($2 = '' OR id < $2) AND ($3 = '' OR state = $3) \
         AND ($4 = '' OR reference LIKE $5) ORDER BY id DESC LIMIT $6"
    ));
    let text = query.text.clone().unwrap_or_default();
    let pattern = format!("%{}%", text.replace(['%', '_'], ""));
    let rows = sqlx::query(some)
        .bind(project.to_owned())
        .bind(query.before.clone().unwrap_or_default())
        .bind(query.state.map_or("", State::name))
        .bind(text)
        .bind(pattern)
        .bind(limit + 1)
        .fetch_all(&database.pool)
        .await?;
    let mut builds: Vec<_> = rows.iter().map(read).collect::<Result<_, _>>()?;
    let mut next = None;
    if i64::try_from(builds.len()).unwrap_or(i64::MAX) > limit {
        builds.pop();
        next = builds.last().map(|build: &Build| build.id.clone());
    }
    Ok(Builds { builds, next })
}

/// Which builds are listed.
#[derive(Debug, Clone, Default, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    /// Only those of a state.
    pub(crate) state: Option<State>,
    /// Only those with this text in their reference.
    pub(crate) text: Option<String>,
    /// Only those that are older than this one.
    pub(crate) before: Option<String>,
    /// At most so many: 50 unless said otherwise, 200 at most.
    pub(crate) limit: Option<i64>,
}

fn read(row: &AnyRow) -> Result<Build, sqlx::Error> {
    let state: String = row.try_get("state")?;
    let outcome: Option<String> = row.try_get("outcome")?;
    Ok(Build {
        id: row.try_get("id")?,
        project: row.try_get("project")?,
        state: State::of(&state).unwrap_or(State::Failed),
        image: row.try_get("image")?,
        reference: row.try_get("reference")?,
        who: row.try_get("who")?,
        created: row.try_get("created")?,
        started: row.try_get("started")?,
        ended: row.try_get("ended")?,
        attempts: row.try_get("attempts")?,
        outcome: outcome.as_deref().map(parsed).transpose()?,
    })
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Figures of all builds.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) states: Vec<InState>,
    /// How long the oldest one waits, in seconds.
    pub(crate) oldest: String,
}

/// Builds of one state.
#[derive(Debug)]
pub(crate) struct InState {
    pub(crate) name: &'static str,
    pub(crate) builds: i64,
    /// How long all of them took, in seconds.
    pub(crate) seconds: String,
}

/// Figures of all builds.
pub(crate) async fn figures(database: &Database) -> Result<Figures, sqlx::Error> {
    let all = "SELECT state, COUNT(*) AS number, MIN(created) AS oldest, \
         CAST(COALESCE(SUM(ended - started), 0) AS BIGINT) AS time FROM builds GROUP BY state";
    let rows = sqlx::query(all).fetch_all(&database.pool).await?;
    let seconds = |milliseconds: i64| {
        let milliseconds = milliseconds.max(0);
        format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
    };
    let (mut states, mut waited) = (Vec::new(), 0);
    for row in rows {
        let Some(state) = State::of(row.try_get("state")?) else {
            continue;
        };
        if state == State::Queued {
            waited = now() - row.try_get::<i64, _>("oldest")?;
        }
        states.push(InState {
            name: state.name(),
            builds: row.try_get("number")?,
            seconds: seconds(row.try_get("time")?),
        });
    }
    Ok(Figures {
        states,
        oldest: seconds(waited),
    })
}

impl InState {
    pub(crate) fn is_final(&self) -> bool {
        State::of(self.name).is_some_and(State::is_final)
    }
}

/// Asks for a build to stop: one that waits ends at once. Says whether it is there.
pub(crate) async fn stop(
    database: &Database,
    project: &str,
    id: &str,
) -> Result<bool, sqlx::Error> {
    let waiting = "UPDATE builds SET state = 'cancelled', ended = $3, outcome = $4 \
         WHERE id = $1 AND project = $2 AND state = 'queued'";
    let done = sqlx::query(waiting)
        .bind(id.to_owned())
        .bind(project.to_owned())
        .bind(now())
        .bind(written(&Outcome::Error(BuildError::interrupted())))
        .execute(&database.pool)
        .await?;
    if done.rows_affected() > 0 {
        return Ok(true);
    }
    let running = "UPDATE builds SET stop = 1 WHERE id = $1 AND project = $2";
    let done = sqlx::query(running)
        .bind(id.to_owned())
        .bind(project.to_owned())
        .execute(&database.pool)
        .await?;
    Ok(done.rows_affected() > 0)
}

fn written(outcome: &Outcome) -> String {
    serde_json::to_string(outcome).unwrap_or_default()
}

/// Takes the oldest build that waits, or whose worker was lost, of a project that has not as many at work as it may.
pub(crate) async fn take(
    database: &Database,
    worker: &str,
    settings: &Settings,
) -> Result<Option<Taken>, sqlx::Error> {
    let time = now();
    let busy = "SELECT project, COUNT(*) AS number FROM builds \
         WHERE state = 'running' AND lease >= $1 GROUP BY project";
    let rows = sqlx::query(busy)
        .bind(time)
        .fetch_all(&database.pool)
        .await?;
    // Names of projects have no commas.
    let mut full = String::from(",");
    for row in rows {
        let (project, number): (String, i64) = (row.try_get("project")?, row.try_get("number")?);
        if number >= i64::from(settings.limits(&project).builds) {
            full.push_str(&project);
            full.push(',');
        }
    }
    // Others look for one at the same time.
    let others = if database.is_shared {
        "FOR UPDATE SKIP LOCKED"
    } else {
        ""
    };
    let take = sqlx::AssertSqlSafe(format!(
        "UPDATE builds SET state = 'running', worker = $1, lease = $2, attempts = attempts + 1, \
         started = COALESCE(started, $3) WHERE id = (SELECT id FROM builds \
         WHERE (state = 'queued' OR (state = 'running' AND lease < $3)) \
         AND $4 NOT LIKE '%,' || project || ',%' ORDER BY created, id LIMIT 1 {others}) \
         RETURNING id, project, wanted, attempts"
    ));
    let row = sqlx::query(take)
        .bind(worker.to_owned())
        .bind(time + LEASE)
        .bind(time)
        .bind(full)
        .fetch_optional(&database.pool)
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let wanted: String = row.try_get("wanted")?;
    Ok(Some(Taken {
        id: row.try_get("id")?,
        project: row.try_get("project")?,
        wanted: parsed(&wanted)?,
        attempts: row.try_get("attempts")?,
    }))
}

/// Gives a build back that was not ended: another worker begins it again.
pub(crate) async fn release(
    database: &Database,
    worker: &str,
    id: &str,
) -> Result<(), sqlx::Error> {
    let release = "UPDATE builds SET state = 'queued', worker = NULL, attempts = attempts - 1 \
         WHERE id = $1 AND worker = $2 AND state = 'running'";
    sqlx::query(release)
        .bind(id.to_owned())
        .bind(worker.to_owned())
        .execute(&database.pool)
        .await
        .map(drop)
}

impl Taken {
    /// Whether too many workers were lost over it.
    pub(crate) const fn is_hopeless(&self) -> bool {
        self.attempts > ATTEMPTS
    }
}

/// How a worker stands with a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is to go on.
    On,
    /// Somebody wants it to stop.
    Stop,
    /// Another worker has the build.
    Lost,
}

/// Says that a worker is still at it.
pub(crate) async fn renew(
    database: &Database,
    worker: &str,
    id: &str,
) -> Result<Standing, sqlx::Error> {
    let renew = "UPDATE builds SET lease = $3 WHERE id = $1 AND worker = $2 AND state = 'running' \
         RETURNING stop";
    let row = sqlx::query(renew)
        .bind(id.to_owned())
        .bind(worker.to_owned())
        .bind(now() + LEASE)
        .fetch_optional(&database.pool)
        .await?;
    Ok(
        match row.map(|row| row.try_get::<i64, _>("stop")).transpose()? {
            None => Standing::Lost,
            Some(0) => Standing::On,
            Some(_) => Standing::Stop,
        },
    )
}

/// Ends a build that a worker has. Says whether it still had it.
pub(crate) async fn end(
    database: &Database,
    worker: &str,
    id: &str,
    state: State,
    outcome: &Outcome,
) -> Result<bool, sqlx::Error> {
    let end = "UPDATE builds SET state = $3, ended = $4, outcome = $5 \
         WHERE id = $1 AND worker = $2 AND state = 'running'";
    let done = sqlx::query(end)
        .bind(id.to_owned())
        .bind(worker.to_owned())
        .bind(state.name())
        .bind(now())
        .bind(written(outcome))
        .execute(&database.pool)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Gives builds back that another program of this service had: it is gone, as nobody else may use the database.
pub(crate) async fn reclaim(database: &Database) -> Result<(), sqlx::Error> {
    if database.is_shared {
        return Ok(());
    }
    sqlx::query("UPDATE builds SET lease = 0 WHERE state = 'running'")
        .execute(&database.pool)
        .await
        .map(drop)
}

/// The number of the last event of a build.
pub(crate) async fn last_event(database: &Database, id: &str) -> Result<i64, sqlx::Error> {
    let row = sqlx::query("SELECT COALESCE(MAX(number), 0) AS last FROM events WHERE build = $1")
        .bind(id.to_owned())
        .fetch_one(&database.pool)
        .await?;
    row.try_get("last")
}

/// Adds events to a build, the first with the number after `last`. Fails where another worker did so.
pub(crate) async fn tell(
    database: &Database,
    id: &str,
    last: i64,
    events: &[(i64, BuildEvent)],
) -> Result<(), sqlx::Error> {
    let mut transaction = database.pool.begin().await?;
    for (number, (at, event)) in (last + 1..).zip(events) {
        let event = serde_json::to_string(event).unwrap_or_default();
        sqlx::query("INSERT INTO events (build, number, at, event) VALUES ($1, $2, $3, $4)")
            .bind(id.to_owned())
            .bind(number)
            .bind(*at)
            .bind(event)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}

/// Events of a build after one, at most so many, with their numbers.
pub(crate) async fn events(
    database: &Database,
    id: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, Happened)>, sqlx::Error> {
    let some = "SELECT number, at, event FROM events WHERE build = $1 AND number > $2 \
         ORDER BY number LIMIT $3";
    let rows = sqlx::query(some)
        .bind(id.to_owned())
        .bind(after)
        .bind(limit)
        .fetch_all(&database.pool)
        .await?;
    rows.iter()
        .map(|row| {
            let event: String = row.try_get("event")?;
            let happened = Happened {
                at: row.try_get("at")?,
                event: parsed(&event)?,
            };
            Ok((row.try_get("number")?, happened))
        })
        .collect()
}

/// Removes builds that ended before a time, with what happened in them.
pub(crate) async fn forget(database: &Database, before: i64) -> Result<u64, sqlx::Error> {
    let events = "DELETE FROM events WHERE build IN (SELECT id FROM builds WHERE ended < $1)";
    sqlx::query(events)
        .bind(before)
        .execute(&database.pool)
        .await?;
    let done = sqlx::query("DELETE FROM builds WHERE ended < $1")
        .bind(before)
        .execute(&database.pool)
        .await?;
    Ok(done.rows_affected())
}
