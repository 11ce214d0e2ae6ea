//! Which schema a catalogue has, and copies of it that leave it as it is.

use std::path::Path;

use sqlx::{Connection, SqliteConnection};

use super::{Catalogue, CatalogueError, MIGRATIONS, check_application, check_triggers, options};

/// A catalogue's schema beside this program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schema {
    /// The program and the catalogue have the same migrations.
    Current,
    /// The catalogue lacks migrations; the number of the first.
    Older(i64),
}

impl Catalogue {
    /// Opens a catalogue and leaves its schema as it is, which may be older than this program's: of that only what the first
    /// version had can be relied on.
    ///
    /// # Errors
    /// [`CatalogueError`], also for files that are not ours; [`CatalogueError::Newer`].
    pub(crate) async fn open_as_it_is(path: &Path) -> Result<(Self, Schema), CatalogueError> {
        if !path.exists() {
            return Err(CatalogueError::Missing(path.to_owned()));
        }
        let catalogue = Self::connect(path, options(path)).await?;
        let schema = {
            let mut db = catalogue.writer.acquire().await?;
            check_application(&mut db).await?;
            let schema = of(&mut db).await?;
            if schema == Schema::Current {
                check_triggers(&mut db).await?;
            }
            schema
        };
        Ok((catalogue, schema))
    }
}

/// The schema of an open catalogue.
///
/// # Errors
/// [`CatalogueError::Newer`]; SQLite's.
pub(super) async fn of(db: &mut SqliteConnection) -> Result<Schema, CatalogueError> {
    let applied: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
            .fetch_all(db)
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

/// Copies a catalogue into a new file, consistently, also while it is being served: by a connection of its own, so that no call
/// waits. The file is not durable yet.
///
/// # Errors
/// SQLite's.
pub(crate) async fn copy(from: &Path, to: &Path) -> Result<(), sqlx::Error> {
    let text = to
        .to_str()
        .ok_or_else(|| sqlx::Error::InvalidArgument(format!("{} is not UTF-8", to.display())))?;
    let mut db = SqliteConnection::connect_with(&options(from)).await?;
    let copied = sqlx::query("VACUUM INTO ?1").bind(text).execute(&mut db).await;
    let closed = db.close().await;
    copied?;
    closed
}
