//! The catalogue's database: opened, read, written and closed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{Sqlite, SqlitePool, Transaction};

use super::connection::{is_reusable, options};
use super::erasure_progress::ErasureProgress;
use super::failure::CatalogueError;
use super::files::Files;
use super::reserve::Reserve;
use super::schema::{self, MIGRATIONS, Schema, check_application, check_guards};
use super::spare;
use crate::limits;

const READERS: u32 = 4;

/// A transaction that holds the write lock.
pub(crate) type Write = Transaction<'static, Sqlite>;

/// The open catalogue; clones share it.
#[derive(Clone)]
pub(crate) struct Catalogue {
    pub(super) path: PathBuf,
    pub(super) readers: SqlitePool,
    pub(super) writer: SqlitePool,
    pub(super) files: Arc<Files>,
    pub(super) reserve: Arc<Reserve>,
    pub(super) erased: Arc<ErasureProgress>,
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
            let schema = schema::of(&mut db).await?;
            if schema == Schema::Current {
                check_guards(&mut db).await?;
            }
            schema
        };
        Ok((catalogue, schema))
    }

    pub(super) async fn bring_up_to_date(&self, schema: Schema) -> Result<(), CatalogueError> {
        if schema != Schema::Current {
            MIGRATIONS.run(&self.writer).await?;
            check_guards(&mut *self.writer.acquire().await?).await?;
        }
        Ok(())
    }

    pub(super) async fn connect(path: &Path, options: SqliteConnectOptions) -> Result<Self, CatalogueError> {
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
            erased: Arc::default(),
        })
    }

    /// From now on keeps room for itself; see [`super::reserve`].
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
    pub(crate) async fn read(&self) -> sqlx::Result<PoolConnection<Sqlite>> {
        self.readers.acquire().await
    }

    /// For what several statements read and must fit together: nothing comes between them. Not for long, for meanwhile the log
    /// cannot be emptied.
    pub(crate) async fn snapshot(&self) -> sqlx::Result<Transaction<'static, Sqlite>> {
        self.readers.begin().await
    }

    /// Begins a transaction and takes the write lock. Dropped without commit, it changes nothing.
    ///
    /// # Errors
    /// SQLite's; [`super::files::Replaced`] where the catalogue's files are others by now.
    pub(crate) async fn write(&self) -> sqlx::Result<Write> {
        self.tend(false).await;
        let tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        self.files.check()?;
        Ok(tx)
    }

    /// Whether the catalogue's files are those that are open, as far as that is known without a transaction.
    ///
    /// # Errors
    /// [`super::files::Replaced`].
    pub(crate) fn check_files(&self) -> sqlx::Result<()> {
        Ok(self.files.check_last()?)
    }

    /// A connection for statements that cannot be in a transaction.
    pub(crate) async fn write_alone(&self) -> sqlx::Result<PoolConnection<Sqlite>> {
        self.writer.acquire().await
    }

    /// Closes all connections; the write-ahead log is folded into the file, and its room is kept for the next start.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
        // Also where a start that has given it up ends before it keeps a reserve.
        if (self.reserve.is_kept() || spare::is_there(&self.path))
            && let Err(error) = spare::make(&self.path)
        {
            log::warn!("there may be no room for the next start: {error}");
        }
    }
}
