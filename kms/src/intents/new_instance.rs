//! Disks that are created together with an instance: all of them or none, each metered as a create (rule D11).
//!
//! Until all are made each has its intent open and the instance is not there for anybody; then one transaction ends all
//! intents. What a crash leaves is undone at the next start, disk by disk, and the instance with them.

use super::{clone, create_disk};
use crate::audit::{self, Caller, Decision};
use crate::catalogue::instances::{self, InstanceRow};
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::{Write, disks, volumes};
use crate::context::Kms;
use crate::error::{Error, Result};
use crate::volumes::sweep;

/// An instance that is being made with its disks.
#[derive(Debug)]
pub(crate) struct NewInstance {
    pub(crate) row: InstanceRow,
    /// Its system disk, if it has one, and the others.
    pub(crate) disks: Vec<IntentRow>,
    /// What is copied to the system disk.
    pub(crate) source: Option<IntentRow>,
}

/// The service key goes with the last of the disks that use it.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn hand_on_made_key(tx: &mut Write, opened: &mut [IntentRow]) -> Result<()> {
    // They are undone in this order, and the service key goes with the last that uses it.
    let made_key = opened.iter_mut().find_map(|intent| {
        let made = intent.made_key.take()?;
        Some((intent.id.clone(), made))
    });
    if let (Some((maker, key)), Some(last)) = (made_key, opened.last_mut()) {
        intents::set_made_key(tx, &maker, None).await?;
        intents::set_made_key(tx, &last.id, Some(&key)).await?;
        last.made_key = Some(key);
    }
    Ok(())
}

/// Makes them, and the instance is there.
///
/// # Errors
/// Those of `disk.create`: then all must be undone.
pub(crate) async fn make(kms: &Kms, decided: &NewInstance) -> Result<()> {
    for intent in &decided.disks {
        create_disk::build(kms, intent).await?;
    }
    if let (Some(source), Some(system)) = (&decided.source, decided.disks.first()) {
        clone::fill(kms, source, &system.disk).await?;
    }
    commit(kms, decided).await?;
    if decided.source.is_some() {
        sweep::sweep_or_leave(kms).await;
    }
    Ok(())
}

async fn commit(kms: &Kms, decided: &NewInstance) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    for intent in &decided.disks {
        disks::set_state(&mut tx, &intent.disk, "available").await?;
        intents::close(&mut tx, intent).await?;
    }
    if let (Some(source), Some(system)) = (&decided.source, decided.disks.first()) {
        volumes::set_written(&mut tx, &system.disk, true).await?;
        intents::close(&mut tx, source).await?;
    }
    instances::set_made(&mut tx, &decided.row.id).await?;
    Ok(tx.commit().await?)
}

/// Removes what was made, and refunds. What cannot be undone now stays open, and is undone later.
///
/// # Errors
/// The catalogue's; then the instance goes at the next start.
pub(crate) async fn undo(
    kms: &Kms,
    caller: &Caller,
    call: &str,
    decided: &NewInstance,
    error: &Error,
) -> Result<()> {
    let opened: Vec<_> = decided.disks.iter().chain(&decided.source).collect();
    clone::undo(kms, &opened, error).await;
    let mut tx = kms.catalogue.write().await?;
    audit::append(&mut tx, caller, call, &decided.row.name, Decision::Failed(error)).await?;
    instances::delete(&mut tx, &decided.row.id).await?;
    Ok(tx.commit().await?)
}
