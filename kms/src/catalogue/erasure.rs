//! What is deleted is gone (rule K14): wrapped keys that were deleted are overwritten where the catalogue's log and the copies that
//! are [`kept`] still have them.
//!
//! What cannot be overwritten at once, since others use the log or a copy cannot be written to, is within the next minutes: how
//! often keys have changed says whether something is left.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::connection::{be_impatient, is_one_of};
use super::database::Catalogue;
use super::erasure_progress::ErasureProgress;
use super::{kept, key_changes, reserve};
use crate::limits;

impl Catalogue {
    /// Overwrites deleted keys in the write-ahead log. In copies [`Self::forget_rest`] does so.
    pub(crate) async fn forget_deleted(&self) {
        let changes = self.key_changes().await;
        let is_gone = self.forget_in_log().await;
        self.erased.is_left_in_log.store(!is_gone, Ordering::Relaxed);
        if is_gone && let Ok(changes) = changes {
            self.erased.in_log.store(changes, Ordering::Relaxed);
        }
    }

    /// Overwrites deleted keys in the copies, too: those of master keys and root keys, which others' copies must not outlive.
    pub(crate) async fn forget_destroyed(&self) {
        let changes = self.key_changes().await;
        let is_gone = kept::forget_deleted(&self.path).await;
        self.erased.is_left_in_copies.store(!is_gone, Ordering::Relaxed);
        if is_gone && let Ok(changes) = changes {
            self.erased.in_copies.store(changes, Ordering::Relaxed);
        }
        self.forget_deleted().await;
    }

    /// Overwrites deleted keys where that has not been done since keys changed last.
    ///
    /// # Errors
    /// The catalogue's.
    pub(crate) async fn forget_rest(&self) -> sqlx::Result<()> {
        let changes = self.key_changes().await?;
        if self.erased.in_copies.load(Ordering::Relaxed) != changes {
            self.forget_destroyed().await;
        } else if self.erased.in_log.load(Ordering::Relaxed) != changes {
            self.forget_deleted().await;
        }
        Ok(())
    }

    /// Whether deleted keys could not be overwritten, in the log or in a copy: it is tried again each minute.
    pub(crate) fn has_deleted_keys(&self) -> bool {
        let ErasureProgress {
            is_left_in_log,
            is_left_in_copies,
            ..
        } = &*self.erased;
        is_left_in_log.load(Ordering::Relaxed) || is_left_in_copies.load(Ordering::Relaxed)
    }

    async fn key_changes(&self) -> sqlx::Result<i64> {
        key_changes::count(&mut *self.read().await?).await
    }

    /// Whether no deleted key is left in the log. Where readers keep it for too long, a warning says so.
    async fn forget_in_log(&self) -> bool {
        let patience = tokio::time::Instant::now() + limits::CATALOGUE_BUSY_TIME;
        loop {
            match self.empty_log().await {
                Ok(true) => return true,
                Ok(false) if tokio::time::Instant::now() < patience => {
                    tokio::time::sleep(limits::LOG_RETRY_TIME).await;
                }
                Ok(false) => {
                    log::warn!("readers keep the catalogue's log: deleted keys are still in it");
                    return false;
                }
                Err(error) => {
                    log::warn!("deleted keys are still in the catalogue's log: {error}");
                    return false;
                }
            }
        }
    }

    /// Whether nobody else used the log.
    async fn empty_log(&self) -> sqlx::Result<bool> {
        let mut db = self.writer.acquire().await?;
        self.files.check()?;
        let reserve = Arc::clone(&self.reserve);
        let runtime = Handle::current();
        // To its end in a thread of its own, also where nobody waits for it any more: nobody else has the connection meanwhile.
        let emptied = spawn_blocking(move || {
            runtime.block_on(async {
                // Others must not wait for the writer while it waits for readers.
                be_impatient(&mut db).await?;
                match reserve.is_kept() {
                    true => reserve.overwrite_log(&mut db).await,
                    false => reserve::truncate_log(&mut db).await,
                }
            })
        });
        match emptied.await.map_err(std::io::Error::other)? {
            // "database table is locked": another connection writes.
            Err(sqlx::Error::Database(error)) if is_one_of(&*error, &[5, 6]) => Ok(false),
            emptied => emptied,
        }
    }
}
