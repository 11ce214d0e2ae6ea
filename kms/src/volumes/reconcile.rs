//! Catalogue and stores are brought together by the ids of snapshots and clones: pins that a crash has left are removed,
//! missing ones are made. What a store holds and the catalogue does not know is an orphan: it is logged, and stays.

use std::collections::HashMap;
use std::path::Path;

use sealblk_proto::message::{SnapshotReport, StoreReport};

use crate::catalogue::snapshots::{self, SnapshotRow};
use crate::catalogue::states::SnapshotState;
use crate::catalogue::{intents, volumes};
use crate::context::Kms;
use crate::error::Result;
use crate::host::aside;
use crate::id::{self, Kind};
use crate::limits;
use crate::volumes::commands::{self, Unmade};
use crate::volumes::sweep;

/// Compares the stores that clones read, and after a restore of the catalogue all others.
///
/// # Errors
/// The catalogue's. What fails for one store is logged, and is tried again by the next start.
pub(crate) async fn all(kms: &Kms) -> Result<()> {
    let wanted = {
        let mut db = kms.catalogue.read().await?;
        volumes::to_compare(&mut db).await?
    };
    for volume in wanted {
        if let Err(error) = one(kms, &volume).await {
            log::warn!(
                "{volume}: its store cannot be compared with the catalogue: {}",
                error.full_message()
            );
        }
    }
    Ok(())
}

async fn one(kms: &Kms, volume: &str) -> Result<()> {
    let report = commands::report(kms, volume).await?;
    let (rows, row, busy) = {
        let mut db = kms.catalogue.read().await?;
        (
            snapshots::of_volume(&mut db, volume).await?,
            volumes::get(&mut db, volume).await?,
            intents::on_volume(&mut db, volume).await?.is_some(),
        )
    };
    if busy {
        return Ok(()); // The operation on it knows better, and the next start looks again.
    }
    let held: HashMap<_, _> = report
        .snapshots
        .iter()
        .map(|snapshot| (snapshot.id.as_str(), snapshot))
        .collect();
    for snapshot in held.values() {
        if !rows.iter().any(|row| row.id == snapshot.id) && !snapshot.hidden {
            log::warn!(
                "{volume}: its store has {}, which the catalogue does not know",
                snapshot.id
            );
        }
    }
    for row in &rows {
        match held.get(row.id.as_str()) {
            Some(snapshot) => compare_pins(kms, row, snapshot).await?,
            None => log::warn!("{volume}: its store does not have {} ({})", row.id, row.name),
        }
    }
    if !row.compared {
        settle(kms, volume, &report, &rows).await?;
    }
    Ok(())
}

async fn compare_pins(kms: &Kms, row: &SnapshotRow, snapshot: &SnapshotReport) -> Result<()> {
    let (known, settled) = {
        let mut db = kms.catalogue.read().await?;
        (
            snapshots::clones(&mut db, &row.id).await?,
            snapshots::settled_clones(&mut db, &row.id).await?,
        )
    };
    for clone in settled.iter().filter(|clone| !snapshot.pins.contains(clone)) {
        log::warn!("{}: it was not kept for {clone}, and is now", row.id);
        let operation = id::new(Kind::Intent)?;
        commands::pin(kms, &row.volume, &operation, &row.id, clone)
            .await
            .map_err(Unmade::into_error)?;
    }
    for pin in snapshot.pins.iter().filter(|pin| !known.contains(pin)) {
        let store = kms.state.store(pin, None);
        if aside::look(&store, limits::LOOK_TIME, Path::exists).await != Some(false) {
            // The catalogue may be older than the clone.
            log::warn!("{}: kept for {pin}, which the catalogue does not know", row.id);
            continue;
        }
        log::warn!("{}: no longer kept for {pin}, which there is not", row.id);
        commands::unpin(kms, &row.volume, &row.id, pin).await?;
    }
    Ok(())
}

/// After a restore: the store knows which snapshots there are and how large the disk is.
async fn settle(kms: &Kms, volume: &str, report: &StoreReport, rows: &[SnapshotRow]) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    for row in rows {
        let held = report.snapshots.iter().find(|snapshot| snapshot.id == row.id);
        let state = match (held, row.state) {
            // A deleted snapshot that images need, and that the store does not have: the images say so when they are used. Its name
            // may be another's by now.
            (None, SnapshotState::Hidden) if row.held => continue,
            (None, _) => SnapshotState::Error,
            (Some(snapshot), _) if snapshot.hidden => SnapshotState::Hidden,
            (Some(_), SnapshotState::Hidden) => continue,
            (Some(_), _) => SnapshotState::Available,
        };
        snapshots::set_state(&mut tx, &row.id, state).await?;
        snapshots::delete_if_forgotten(&mut tx, &row.id).await?;
    }
    if let Ok(size) = i64::try_from(report.size) {
        volumes::set_size(&mut tx, volume, size).await?;
    }
    volumes::set_compared(&mut tx, volume).await?;
    tx.commit().await?;
    sweep::sweep_or_leave(kms).await;
    Ok(())
}
