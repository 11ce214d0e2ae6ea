//! The catalogue: one SQLite file in the state directory.
//!
//! Write-ahead log, `synchronous=FULL` (what is committed survives a power cut), foreign keys. Writes take the lock
//! when they begin, so a decision sees no change between its checks and its commit.
//!
//! `secure_delete` overwrites deleted rows in the file's pages; older images of these pages may still be in the
//! write-ahead log. So who deletes a wrapped key calls [`Catalogue::forget_deleted`] after the commit, or
//! [`Catalogue::forget_destroyed`]. Blocks that the file system or the medium keeps of either file are out of reach.

pub(crate) mod accounts;
pub(crate) mod attachments;
pub(crate) mod audit_heads;
pub(crate) mod audit_records;
pub(crate) mod backup_file;
pub(crate) mod backups;
#[cfg(test)]
pub(crate) mod behind;
pub(crate) mod clock;
pub(crate) mod copies;
pub(crate) mod disks;
pub(crate) mod files;
pub(crate) mod forget;
pub(crate) mod images;
pub(crate) mod instances;
pub(crate) mod intents;
pub(crate) mod kept;
pub(crate) mod key_changes;
pub(crate) mod key_names;
pub(crate) mod key_state;
pub(crate) mod keys;
pub(crate) mod kinds;
pub(crate) mod lineages;
pub(crate) mod meta;
pub(crate) mod named;
#[cfg(test)]
mod plan_tests;
pub(crate) mod reserve;
pub(crate) mod schema;
pub(crate) mod services;
pub(crate) mod snapshots;
pub(crate) mod spare;
pub(crate) mod states;
pub(crate) mod store_states;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;
pub(crate) mod volumes;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sqlx::error::DatabaseError;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Sqlite, SqliteConnection, SqlitePool, Transaction};

use self::files::Files;
pub(crate) use self::files::Replaced;
use self::forget::Forgotten;
use self::schema::Schema;
use crate::error::{Code, Error};
use crate::limits;
use reserve::Reserve;

/// "seal" in ASCII; `PRAGMA application_id` of our files.
const APPLICATION_ID: i64 = 0x7365_616c;
const READERS: u32 = 4;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// A transaction that holds the write lock.
pub(crate) type Write = Transaction<'static, Sqlite>;

/// The open catalogue; clones share it.
#[derive(Clone)]
pub(crate) struct Catalogue {
    path: PathBuf,
    readers: SqlitePool,
    writer: SqlitePool,
    files: Arc<Files>,
    reserve: Arc<Reserve>,
    forgotten: Arc<Forgotten>,
}

/// Why there is no catalogue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogueError {
    #[error("{0} does not exist: make it with `sealblk-kms init`")]
    Missing(PathBuf),
    #[error("it is not a sealblk catalogue")]
    Foreign,
    #[error("its file cannot be looked at")]
    File(#[from] std::io::Error),
    #[error("SQLite failed")]
    Database(#[from] sqlx::Error),
    #[error("its schema is damaged")]
    Schema(#[from] sqlx::migrate::MigrateError),
    #[error(
        "it is of a later version of sealblk-kms (schema {found}, and this program knows those up to {known}): use that version"
    )]
    Newer { found: i64, known: i64 },
    #[error("its trigger {0}, which guards the audit log or a rule, is missing or was changed")]
    Unguarded(String),
}

impl From<CatalogueError> for Error {
    fn from(error: CatalogueError) -> Self {
        let code = match error {
            CatalogueError::Missing(_) => Code::StateMissing,
            _ => Code::StateUnusable,
        };
        Error::because(code, "the catalogue cannot be opened", error)
    }
}

impl Catalogue {
    /// Makes a new catalogue, empty but for its tables. It must be closed before the file is renamed.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub(crate) async fn create(path: &Path) -> Result<Self, CatalogueError> {
        let catalogue = Self::connect(path, options(path).create_if_missing(true)).await?;
        MIGRATIONS.run(&catalogue.writer).await?;
        Ok(catalogue)
    }

    /// Opens a catalogue and brings its schema up to date.
    ///
    /// # Errors
    /// [`CatalogueError`], also for files that are not ours.
    pub(crate) async fn open(path: &Path) -> Result<Self, CatalogueError> {
        if !path.exists() {
            return Err(CatalogueError::Missing(path.to_owned()));
        }
        let (catalogue, schema) = Self::open_as_it_is(path).await?;
        catalogue.bring_up_to_date(schema).await?;
        Ok(catalogue)
    }

    async fn bring_up_to_date(&self, schema: Schema) -> Result<(), CatalogueError> {
        if schema != Schema::Current {
            MIGRATIONS.run(&self.writer).await?;
            check_triggers(&mut *self.writer.acquire().await?).await?;
        }
        Ok(())
    }

    async fn connect(path: &Path, options: SqliteConnectOptions) -> Result<Self, CatalogueError> {
        let first = Arc::new(OnceLock::<Arc<Files>>::new());
        let files = Arc::clone(&first);
        let reserve = Arc::new(Reserve::new(path));
        let unset = Arc::clone(&reserve);
        // Connections stay: the last that is closed would take the log's room with it, and one that is not made anew needs no file
        // to be opened while there may be too many.
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(limits::CATALOGUE_BUSY_TIME)
            .after_connect(move |_, _| {
                if let Some(files) = files.get() {
                    files.reconnected();
                }
                unset.is_unset();
                Box::pin(std::future::ready(Ok(())))
            })
            .after_release(|connection, _| Box::pin(is_reusable(connection)))
            .connect_with(options.clone())
            .await?;
        let files = Files::opened(path)?;
        let files = Arc::clone(first.get_or_init(|| Arc::new(files)));
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(limits::CATALOGUE_BUSY_TIME)
            .connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Catalogue {
            path: path.to_owned(),
            readers,
            writer,
            files,
            reserve,
            forgotten: Arc::default(),
        })
    }

    /// From now on keeps room for itself; see [`reserve`].
    pub(crate) async fn keep_reserve(&self) {
        self.reserve.keep();
        self.tend_reserve().await;
    }

    /// Has its reserve filled, if there is room by now.
    pub(crate) async fn tend_reserve(&self) {
        self.tend(true).await;
    }

    async fn tend(&self, anyhow: bool) {
        // Others' files are none of ours.
        if self.files.check_last().is_ok() {
            self.reserve.tend(&self.writer, anyhow).await;
        }
    }

    /// How much of the reserve is left, in per cent, where the file system has no room for more.
    pub(crate) fn reserve_left(&self) -> u8 {
        self.reserve.left()
    }

    /// A connection for reading.
    pub(crate) async fn read(&self) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        self.readers.acquire().await
    }

    /// Begins a transaction and takes the write lock. Dropped without commit, it changes nothing.
    ///
    /// # Errors
    /// SQLite's; [`Replaced`] where the catalogue's files are others by now.
    pub(crate) async fn write(&self) -> Result<Write, sqlx::Error> {
        self.tend(false).await;
        let tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        self.files.check()?;
        Ok(tx)
    }

    /// Whether the catalogue's files are those that are open, as far as that is known without a transaction.
    ///
    /// # Errors
    /// [`Replaced`].
    pub(crate) fn check_files(&self) -> Result<(), sqlx::Error> {
        Ok(self.files.check_last()?)
    }

    /// A connection for statements that cannot be in a transaction.
    pub(crate) async fn write_alone(&self) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        self.writer.acquire().await
    }

    /// Closes all connections; the write-ahead log is folded into the file, and its room is kept for the next start.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
        if self.reserve.is_kept()
            && let Err(error) = spare::make(&self.path)
        {
            log::warn!("there may be no room for the next start: {error}");
        }
    }
}

async fn check_application(db: &mut SqliteConnection) -> Result<(), CatalogueError> {
    let id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(db).await?;
    if id == APPLICATION_ID {
        Ok(())
    } else {
        Err(CatalogueError::Foreign)
    }
}

/// Whether SQLite's error is one of these (<https://sqlite.org/rescode.html>), whatever else its extended code says.
fn is_one_of(error: &dyn DatabaseError, codes: &[i32]) -> bool {
    let code = error.code().and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| codes.contains(&(code & 0xff)))
}

/// Others are not waited for, until the connection goes back to its pool.
async fn be_impatient(db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("PRAGMA busy_timeout = 0").execute(db).await?;
    Ok(())
}

/// Others are waited for again.
async fn set_patience(db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let statement = format!(
        "PRAGMA busy_timeout = {}",
        limits::CATALOGUE_BUSY_TIME.as_millis()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(db).await?;
    Ok(())
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(limits::CATALOGUE_BUSY_TIME)
        .pragma("secure_delete", "ON")
        // What is sorted takes no room on a file system.
        .pragma("temp_store", "MEMORY")
        .pragma("wal_autocheckpoint", limits::LOG_PAGES.to_string())
}

/// Whether a connection that comes back has ended its transaction. SQLite rolls back by itself where a medium is full
/// or fails; the `ROLLBACK` that follows fails too, and sqlx believes for ever that a transaction is open.
async fn is_reusable(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // A dropped transaction's rollback is done when this is answered. Who has had it may have been impatient.
    set_patience(connection).await?;
    Ok(!connection.is_in_transaction())
}

/// Compares the triggers with those that the migrations make.
async fn check_triggers(db: &mut SqliteConnection) -> Result<(), CatalogueError> {
    const TRIGGERS: &str = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' ORDER BY name";
    let mut fresh = SqliteConnection::connect("sqlite::memory:").await?;
    MIGRATIONS.run_direct(None, &mut fresh, false).await?;
    let expected: Vec<(String, String)> = sqlx::query_as(TRIGGERS).fetch_all(&mut fresh).await?;
    fresh.close().await?;
    let found: Vec<(String, String)> = sqlx::query_as(TRIGGERS).fetch_all(db).await?;
    match expected.into_iter().find(|trigger| !found.contains(trigger)) {
        Some((name, _)) => Err(CatalogueError::Unguarded(name)),
        None => Ok(()),
    }
}

/// Several ids as one parameter N, for `IN (SELECT value FROM json_each(?N))`: so a page of a list needs a statement for each kind
/// of what its rows have, not one for each row.
fn several<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    ids.into_iter().collect::<serde_json::Value>().to_string()
}

/// A page of a list: the rows after an id, in the order of ids.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// Last id of the page before; empty for the first page.
    pub(crate) after: String,
    /// Most rows.
    pub(crate) limit: u32,
}

impl Page {
    /// Rows to ask the catalogue for: one more than wanted tells whether more follow.
    fn probe(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Cuts the rows to the page; the id to go on after, if more follow.
    fn cut<T>(&self, rows: &mut Vec<T>, id: impl Fn(&T) -> &str) -> Option<String> {
        let limit = self.limit as usize;
        if rows.len() <= limit {
            return None;
        }
        rows.truncate(limit);
        rows.last().map(|row| id(row).to_owned())
    }
}
