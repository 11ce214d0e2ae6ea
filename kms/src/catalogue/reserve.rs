//! Room that the catalogue keeps for itself, so that a file system that is full keeps nothing from being given up and no process
//! from being started again: a guest can fill it, and would take at once whatever was given back to make room.
//!
//! So nothing is given back. Pages are kept that hold nothing (SQLite's list of free pages), and the write-ahead log keeps its
//! length when it is empty. Where the file system has little room, the catalogue takes no further pages: what is
//! committed to the log can always be brought into the file, and the log begins anew. While there is room, what was used
//! of the reserve is replaced. What a start makes anew is the one exception ([`spare`]).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use sqlx::pool::PoolConnection;
use sqlx::{Connection, Sqlite, SqlitePool};

use super::connection::be_impatient;
use super::database_file::log_of;
use super::spare::{self, room};
use super::{Db, execute};
use crate::limits;

/// Pages are of SQLite's default size.
const PAGE_BYTES: i64 = 4096;
/// What stands before each of them in the log, never zeros.
const FRAME_HEADER_BYTES: usize = 24;
/// What each of them takes in the log, with its header.
const FRAME_BYTES: u64 = 4096 + FRAME_HEADER_BYTES as u64;
/// What the log begins with.
const HEADER_BYTES: u64 = 32;
/// The largest limit that there is, for none.
const NO_LIMIT: i64 = 0xffff_fffe;

/// What is known of the room for one catalogue.
pub(super) struct Reserve {
    catalogue: PathBuf,
    /// How often the catalogue was to be written to.
    writes: AtomicU32,
    /// There is a reserve.
    kept: AtomicBool,
    /// The limit of pages is to be set anew.
    unset: AtomicBool,
    /// There was little room on the file system when it was last looked.
    tight: AtomicBool,
    /// What is left, in per cent, of the half of the reserve that there is at least when the file system gets full.
    left: AtomicU8,
    /// Whether all of the log has been overwritten once: then there are zeros behind the frames that were written since.
    overwritten: AtomicBool,
}

impl Reserve {
    pub(super) fn new(catalogue: &Path) -> Self {
        Reserve {
            catalogue: catalogue.to_owned(),
            writes: AtomicU32::new(0),
            kept: AtomicBool::new(false),
            unset: AtomicBool::new(true),
            tight: AtomicBool::new(false),
            left: AtomicU8::new(100),
            overwritten: AtomicBool::new(false),
        }
    }

    /// What is left of it, in per cent, where the file system has no room for more.
    pub(super) fn left(&self) -> u8 {
        self.left.load(Ordering::Relaxed)
    }

    /// A connection is new, and has no limit.
    pub(super) fn is_unset(&self) {
        self.unset.store(true, Ordering::Relaxed);
    }

    /// From now on there is one.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// Looks after the reserve, if it is time: each few writes, when the file system gets little room or has some again, and for
    /// whoever would be refused otherwise.
    pub(super) async fn tend(&self, writer: &SqlitePool, anyhow: bool) {
        if !self.is_kept() {
            return;
        }
        let tight = self.is_tight();
        let due = self
            .writes
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(limits::RESERVE_WRITES);
        let changed = self.tight.swap(tight, Ordering::Relaxed) != tight;
        let unset = self.unset.swap(false, Ordering::Relaxed);
        if !(due || tight || changed || unset || anyhow) {
            return;
        }
        if let Err(error) = self.renew(writer, tight).await {
            self.is_unset();
            log::warn!("the catalogue's reserve is not looked after: {error}");
        }
    }

    /// Less room than a guest could take before what was just committed is brought into the file.
    fn is_tight(&self) -> bool {
        room(&self.catalogue)
            .is_some_and(|(size, left)| left < (size / limits::TIGHT_PART).min(limits::TIGHT_BYTES))
    }

    async fn renew(&self, writer: &SqlitePool, tight: bool) -> sqlx::Result<()> {
        let mut db = writer.acquire().await?;
        set_limit(&mut db, NO_LIMIT).await?;
        if !tight {
            self.fill(&mut db).await?;
            spare::make(&self.catalogue)?;
        }
        let free = number(&mut db, "PRAGMA freelist_count").await?;
        if tight {
            if self.log_frames() < free / 2 {
                // The log was made anew by this start.
                spare::give_up(&self.catalogue)?;
                overwrite(&mut db, free / 2).await?;
            }
            let pages = number(&mut db, "PRAGMA page_count").await?;
            set_limit(&mut db, pages).await?;
            shorten_log(&mut db).await?;
        }
        let percent = (free * 200 / limits::RESERVE_PAGES).clamp(0, 100);
        let left = if tight {
            u8::try_from(percent).unwrap_or(100)
        } else {
            100
        };
        self.left.store(left, Ordering::Relaxed);
        Ok(())
    }

    /// Takes pages until there are enough again, if half of them are used; and has the log as long as it may be needed.
    async fn fill(&self, db: &mut PoolConnection<Sqlite>) -> sqlx::Result<()> {
        let free = number(db, "PRAGMA freelist_count").await?;
        if free < limits::RESERVE_PAGES / 2 || self.log_frames() < limits::RESERVE_PAGES {
            // All free pages are used up: SQLite takes no new page before there is no free one.
            overwrite(db, limits::RESERVE_PAGES).await?;
            checkpoint(db, "PASSIVE").await?;
        }
        Ok(())
    }

    /// Overwrites what stood in the log and is in the file by now, so that nothing that was deleted is left in it. False if
    /// others use the log. It blocks while it writes, with the write lock.
    pub(super) async fn overwrite_log(&self, db: &mut Db) -> sqlx::Result<bool> {
        // Something, so that it can be told whether the log begins anew.
        overwrite(db, 1).await?;
        if checkpoint(db, "RESTART").await?.is_none() {
            return Ok(false);
        }
        let begun = self.log_salts()?;
        overwrite(db, 1).await?;
        if self.log_salts()? == begun {
            return Ok(false);
        }
        let version = number(db, "PRAGMA data_version").await?;
        let Some(frames) = checkpoint(db, "PASSIVE").await? else {
            return Ok(false);
        };
        // Behind the end of the log nobody reads, and with this lock nobody else moves the end.
        let mut tx = db.begin_with("BEGIN IMMEDIATE").await?;
        if number(&mut tx, "PRAGMA data_version").await? != version {
            tx.rollback().await?;
            return Ok(false);
        }
        // After a crash there may be anything behind zeros.
        let all = !self.overwritten.swap(false, Ordering::Relaxed);
        zero(&self.log(), frames, all)?;
        self.overwritten.store(true, Ordering::Relaxed);
        tx.rollback().await?;
        Ok(true)
    }

    fn log(&self) -> PathBuf {
        log_of(&self.catalogue)
    }

    /// Pages that the log's file has room for.
    fn log_frames(&self) -> i64 {
        let length = std::fs::metadata(self.log()).map_or(0, |log| log.len());
        i64::try_from(length.saturating_sub(HEADER_BYTES) / FRAME_BYTES).unwrap_or(i64::MAX)
    }

    /// The salts of the log's header, which are others each time it begins anew (<https://sqlite.org/fileformat2.html>, section
    /// 4.1). No lock of SQLite's is on this file, which would go when it is closed.
    fn log_salts(&self) -> io::Result<[u8; 8]> {
        let mut salts = [0; 8];
        File::open(self.log())?.read_exact_at(&mut salts, 16)?;
        Ok(salts)
    }
}

/// Writes zeros over what the log has behind so many frames: all of it, or the frames up to the first whose header is zeros. Nobody
/// reads there: whoever opens the catalogue after a crash reads to the first frame that is none.
fn zero(log: &Path, frames: u64, all: bool) -> io::Result<()> {
    let log = File::options().read(true).write(true).open(log)?;
    let length = log.metadata()?.len();
    let mut at = HEADER_BYTES + frames * FRAME_BYTES;
    let zeros = [0; FRAME_BYTES as usize];
    let mut header = [0; FRAME_HEADER_BYTES];
    while at < length {
        let read = log.read_at(&mut header, at)?;
        if !all && header[..read].iter().all(|byte| *byte == 0) {
            break;
        }
        let step = (length - at).min(FRAME_BYTES);
        log.write_all_at(&zeros[..step as usize], at)?;
        at += step;
    }
    log.sync_data()
}

/// Writes so many pages, or somewhat more, that hold nothing before and after.
async fn overwrite(db: &mut Db, pages: i64) -> sqlx::Result<()> {
    let mut tx = db.begin_with("BEGIN IMMEDIATE").await?;
    execute!(tx, "INSERT INTO reserve (room) VALUES (zeroblob(?1))"; pages * PAGE_BYTES).await?;
    // Overwritten, since deleted rows are: so they are in the log, and the file has them.
    execute!(tx, "DELETE FROM reserve").await?;
    tx.commit().await
}

/// The log begins anew with the next transaction, unless it is short or others use it.
async fn shorten_log(db: &mut Db) -> sqlx::Result<()> {
    let frames = checkpoint(db, "PASSIVE").await?;
    if frames.is_some_and(|frames| frames > limits::LOG_PAGES) {
        be_impatient(db).await?;
        checkpoint(db, "RESTART").await?;
    }
    Ok(())
}

/// Empties the log and gives back its room. False if others use it.
pub(super) async fn truncate_log(db: &mut Db) -> sqlx::Result<bool> {
    Ok(checkpoint(db, "TRUNCATE").await?.is_some())
}

/// The frames in the log; none if others used it.
async fn checkpoint(db: &mut Db, mode: &str) -> sqlx::Result<Option<u64>> {
    let statement = format!("PRAGMA wal_checkpoint({mode})");
    let (busy, frames, _): (i64, i64, i64) = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .fetch_one(db)
        .await?;
    // Where another checkpoint is under way, the number is -1.
    Ok(u64::try_from(frames).ok().filter(|_| busy == 0))
}

async fn number(db: &mut Db, pragma: &'static str) -> sqlx::Result<i64> {
    sqlx::query_scalar(pragma).fetch_one(db).await
}

async fn set_limit(db: &mut Db, pages: i64) -> sqlx::Result<()> {
    let statement = format!("PRAGMA max_page_count = {pages}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(db).await?;
    Ok(())
}
