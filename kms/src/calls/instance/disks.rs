//! Disks that are created together with an instance: all of them or none, each metered as a create (rule D11).
//!
//! Until all are made each has its intent open and the instance is not there for anybody; then one transaction ends all
//! intents. What a crash leaves is undone at the next start, disk by disk, and the instance with them.

use crate::audit::{self, Caller, Decision};
use crate::calls::Operation;
use crate::calls::disk::create;
use crate::calls::instance::register::Decided;
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::{Write, disks, instances, volumes};
use crate::context::Kms;
use crate::copies::fresh;
use crate::error::{Error, Result};
use crate::volumes::sweep;
use sealblk_api::CreateDisk;

/// Decides on each, in the transaction of the instance.
///
/// # Errors
/// Those of `disk.create`.
pub(crate) async fn decide(
    kms: &Kms,
    caller: &Caller,
    tx: &mut Write,
    wanted: &[&CreateDisk],
) -> Result<Vec<IntentRow>> {
    let mut opened = Vec::with_capacity(wanted.len());
    for disk in wanted {
        opened.push(disk.decide(kms, caller, tx).await?);
        audit::append(tx, caller, CreateDisk::CALL, disk.object(), Decision::Allowed).await?;
    }
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
    Ok(opened)
}

/// Makes them, and the instance is there.
///
/// # Errors
/// Those of `disk.create`: then all must be undone.
pub(crate) async fn make(kms: &Kms, decided: &Decided) -> Result<()> {
    for intent in &decided.disks {
        create::build(kms, intent).await?;
    }
    if let (Some(source), Some(system)) = (&decided.source, decided.disks.first()) {
        fresh::fill(kms, source, &system.disk).await?;
    }
    commit(kms, decided).await?;
    if decided.source.is_some() {
        sweep::sweep_or_leave(kms).await;
    }
    Ok(())
}

async fn commit(kms: &Kms, decided: &Decided) -> Result<()> {
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
    decided: &Decided,
    error: &Error,
) -> Result<()> {
    let opened: Vec<_> = decided.disks.iter().chain(&decided.source).collect();
    fresh::undo(kms, &opened, error).await;
    let mut tx = kms.catalogue.write().await?;
    audit::append(&mut tx, caller, call, &decided.row.name, Decision::Failed(error)).await?;
    instances::delete(&mut tx, &decided.row.id).await?;
    Ok(tx.commit().await?)
}
