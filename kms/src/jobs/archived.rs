//! Records of the audit log that were archived go from the catalogue.

use crate::audit;
use crate::context::Kms;
use crate::error::Result;
use crate::limits;

/// Removes the rows of what was archived, some at a time.
///
/// # Errors
/// The catalogue's: it will be tried again.
pub(crate) async fn sweep(kms: &Kms) -> Result<()> {
    loop {
        let mut tx = kms.catalogue.write().await?;
        let removed = audit::remove_archived(&mut tx, limits::ARCHIVE_BATCH).await?;
        tx.commit().await?;
        if removed < u64::from(limits::ARCHIVE_BATCH) {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}
