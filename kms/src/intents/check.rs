//! A store is examined.

use crate::catalogue::intents::{self, IntentRow};
use crate::context::Kms;
use crate::error::{Error, Result};

/// Ends it, whatever has come of it: it can be asked for again.
///
/// # Errors
/// The catalogue's; then the intent stays open.
pub(crate) async fn close(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    intents::close(&mut tx, intent).await?;
    Ok(tx.commit().await?)
}

/// Ends one that nobody carries out any more: what it has found nobody knows.
///
/// # Errors
/// As [`close`].
pub(super) async fn undo(kms: &Kms, intent: &IntentRow, error: &Error) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    kms.record_undone(&mut tx, intent, error).await?;
    intents::close(&mut tx, intent).await?;
    Ok(tx.commit().await?)
}
