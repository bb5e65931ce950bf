//! Who may ask for what. Of a token's secret only a hash is kept: it is random, and long enough not to be guessed.

use imagespec_build_api::{DEFAULT_PROJECT, MadeToken, NewToken, Scope, Token};
use imagespec_core::digest::Digest;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::clock::now;
use crate::database::Database;

/// What secrets begin with, for scanners that look for such.
const PREFIX: &str = "imagespec_";
/// The project of a token that is for all.
pub(crate) const EVERY_PROJECT: &str = "*";

/// Makes a token.
pub(crate) async fn make(
    database: &Database,
    new: NewToken,
    project: String,
) -> Result<MadeToken, sqlx::Error> {
    let made = fresh(new, project);
    insert(database, &made).await?;
    Ok(made)
}

/// The token of whoever sets the service up, where there is none yet: for all projects.
pub(crate) async fn first(database: &Database) -> Result<Option<MadeToken>, sqlx::Error> {
    let new = NewToken {
        name: "admin".to_owned(),
        scope: Scope::Admin,
        project: None,
    };
    let mut made = fresh(new, EVERY_PROJECT.to_owned());
    // Of several services that start at once, one makes it.
    "first".clone_into(&mut made.token.id);
    let none = "INSERT INTO tokens (id, hash, name, project, scope, created) \
         SELECT $1, $2, $3, $4, $5, $6 WHERE NOT EXISTS (SELECT 1 FROM tokens) \
         ON CONFLICT DO NOTHING RETURNING id";
    let row = bind(sqlx::query(none), &made)
        .fetch_optional(&database.pool)
        .await?;
    Ok(row.map(|_| made))
}

fn fresh(new: NewToken, project: String) -> MadeToken {
    let secret = format!("{PREFIX}{}", hex::encode(rand::random::<[u8; 24]>()));
    MadeToken {
        token: Token {
            id: hex::encode(rand::random::<[u8; 6]>()),
            name: new.name,
            project,
            scope: new.scope,
            created: now(),
        },
        secret,
    }
}

type Query = sqlx::query::Query<'static, sqlx::Any, sqlx::any::AnyArguments>;

fn bind(query: Query, made: &MadeToken) -> Query {
    let Token {
        id,
        name,
        project,
        scope,
        created,
    } = made.token.clone();
    query
        .bind(id)
        .bind(hash(&made.secret))
        .bind(name)
        .bind(project)
        .bind(scope.name())
        .bind(created)
}

async fn insert(database: &Database, made: &MadeToken) -> Result<(), sqlx::Error> {
    let all = "INSERT INTO tokens (id, hash, name, project, scope, created) \
         VALUES ($1, $2, $3, $4, $5, $6)";
    let query = bind(sqlx::query(all), made);
    query.execute(&database.pool).await.map(drop)
}

fn hash(secret: &str) -> String {
    Digest::of(secret).to_string()
}

/// The token of a secret.
pub(crate) async fn find(database: &Database, secret: &str) -> Result<Option<Token>, sqlx::Error> {
    let one = "SELECT id, name, project, scope, created FROM tokens WHERE hash = $1";
    let row = sqlx::query(one)
        .bind(hash(secret))
        .fetch_optional(&database.pool)
        .await?;
    row.as_ref().map(read).transpose()
}

/// All tokens of a project, or of all.
pub(crate) async fn list(database: &Database, project: &str) -> Result<Vec<Token>, sqlx::Error> {
    let some = "SELECT id, name, project, scope, created FROM tokens \
         WHERE project = $1 OR $1 = '*' ORDER BY created, id";
    let rows = sqlx::query(some)
        .bind(project.to_owned())
        .fetch_all(&database.pool)
        .await?;
    rows.iter().map(read).collect()
}

/// Revokes a token of a project, and says whether it was there.
pub(crate) async fn revoke(
    database: &Database,
    project: &str,
    id: &str,
) -> Result<bool, sqlx::Error> {
    let one = "DELETE FROM tokens WHERE id = $1 AND (project = $2 OR $2 = '*')";
    let done = sqlx::query(one)
        .bind(id.to_owned())
        .bind(project.to_owned())
        .execute(&database.pool)
        .await?;
    Ok(done.rows_affected() > 0)
}

fn read(row: &AnyRow) -> Result<Token, sqlx::Error> {
    let scope: String = row.try_get("scope")?;
    Ok(Token {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        project: row.try_get("project")?,
        // A scope of a later version allows the least.
        scope: Scope::of(&scope).unwrap_or(Scope::Read),
        created: row.try_get("created")?,
    })
}

/// The project somebody means who has a token: its own, or for one that is for all, the one that is named.
pub(crate) fn project(token: &Token, named: Option<&str>) -> Option<String> {
    if token.project == EVERY_PROJECT {
        return Some(named.unwrap_or(DEFAULT_PROJECT).to_owned());
    }
    named
        .is_none_or(|named| named == token.project)
        .then(|| token.project.clone())
}

/// Whether something may be the name of a project: it is one of a folder, too.
pub(crate) fn is_project(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('-')
}
