//! A store is examined.

use crate::catalogue::intents::{self, IntentRow};
use crate::context::Kms;
use crate::error::Result;

/// Ends it, whatever has come of it: it can be asked for again.
///
/// # Errors
/// The catalogue's; then the intent stays open.
pub(crate) async fn close(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    intents::close(&mut tx, intent).await?;
    Ok(tx.commit().await?)
}
