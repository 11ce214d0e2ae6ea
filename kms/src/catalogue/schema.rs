//! Which schema a catalogue has, and copies of it that leave it as it is.

use std::path::Path;

use sqlx::{Connection, SqliteConnection};

use super::connection::options;
use super::failure::CatalogueError;
use super::{Db, execute, rows, value, values};

/// "seal" in ASCII; `PRAGMA application_id` of our files.
const APPLICATION_ID: i64 = 0x7365_616c;

/// All that there are.
pub(super) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// A catalogue's schema beside this program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schema {
    /// The program and the catalogue have the same migrations.
    Current,
    /// The catalogue lacks migrations; the number of the first.
    Older(i64),
}

/// The schema of an open catalogue.
///
/// # Errors
/// [`CatalogueError::Newer`]; SQLite's.
pub(super) async fn of(db: &mut Db) -> Result<Schema, CatalogueError> {
    let applied: Vec<i64> = values!(
        db,
        "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version"
    )
    .await?;
    let known: Vec<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
    let newest = known.iter().max().copied().unwrap_or_default();
    if let Some(unknown) = applied.iter().rev().find(|version| !known.contains(version)) {
        return Err(CatalogueError::Newer {
            found: *unknown,
            known: newest,
        });
    }
    let lacking = known.into_iter().find(|version| !applied.contains(version));
    Ok(lacking.map_or(Schema::Current, Schema::Older))
}

/// Whether it is a catalogue at all.
pub(super) async fn check_application(db: &mut Db) -> Result<(), CatalogueError> {
    let id: i64 = value!(db, "PRAGMA application_id").await?;
    if id == APPLICATION_ID {
        Ok(())
    } else {
        Err(CatalogueError::Foreign)
    }
}

/// Compares the triggers, and the views that they read, with those that the migrations make.
pub(super) async fn check_guards(db: &mut Db) -> Result<(), CatalogueError> {
    const GUARDS: &str =
        "SELECT name, sql FROM sqlite_schema WHERE type IN ('trigger', 'view') ORDER BY name";
    let mut fresh = SqliteConnection::connect("sqlite::memory:").await?;
    MIGRATIONS.run_direct(None, &mut fresh, false).await?;
    let expected: Vec<(String, String)> = rows!(&mut fresh, GUARDS).await?;
    fresh.close().await?;
    let found: Vec<(String, String)> = rows!(db, GUARDS).await?;
    match expected.into_iter().find(|guard| !found.contains(guard)) {
        Some((name, _)) => Err(CatalogueError::Unguarded(name)),
        None => Ok(()),
    }
}

/// Copies a catalogue into a new file, consistently, also while it is being served: by a connection of its own, so that no call
/// waits. The file is not durable yet.
///
/// # Errors
/// SQLite's.
pub(crate) async fn copy(from: &Path, to: &Path) -> sqlx::Result<()> {
    let text = to
        .to_str()
        .ok_or_else(|| sqlx::Error::InvalidArgument(format!("{} is not UTF-8", to.display())))?;
    let mut db = SqliteConnection::connect_with(&options(from)).await?;
    let copied = execute!(&mut db, "VACUUM INTO ?1"; text).await;
    let closed = db.close().await;
    copied?;
    closed
}
