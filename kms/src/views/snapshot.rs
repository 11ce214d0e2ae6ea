//! `GET /v1/snapshots` and `/v1/snapshots/{snapshot}`.

use std::collections::HashMap;
use std::sync::Arc;

use sealblk_proto::message::StoreReport;

use crate::audit::Caller;
use crate::catalogue::Page;
use crate::catalogue::snapshots::{self, SnapshotRow};
use crate::context::{Kms, find};
use crate::error::Result;
use crate::volumes::report;
use sealblk_api::{Snapshot, SnapshotList};

/// A page of the account's snapshots, or of one disk's: then its store says how much each takes.
pub(crate) async fn list(
    kms: &Arc<Kms>,
    caller: &Caller,
    disk: Option<&str>,
    page: &Page,
) -> Result<SnapshotList> {
    let (rows, next, volume) = {
        let mut db = kms.catalogue.read().await?;
        let volume = match disk {
            Some(wanted) => Some(find::disk(&mut db, caller, wanted).await?.id),
            None => None,
        };
        let (rows, next) = snapshots::list(&mut db, &caller.account, volume.as_deref(), page).await?;
        (rows, next, volume)
    };
    let known = match &volume {
        Some(volume) if !rows.is_empty() => report::of(kms, volume).await?,
        _ => None,
    };
    let unique = unique_bytes(known.as_ref().map(|known| &*known.report));
    let snapshots = rows.into_iter().map(|row| {
        let bytes = unique.get(row.id.as_str()).copied();
        answer(row, bytes)
    });
    Ok(SnapshotList {
        snapshots: snapshots.collect(),
        next,
    })
}

/// One snapshot.
pub(crate) async fn show(kms: &Arc<Kms>, caller: &Caller, wanted: &str) -> Result<Snapshot> {
    let row = {
        let mut db = kms.catalogue.read().await?;
        find::snapshot(&mut db, caller, None, wanted).await?
    };
    let known = report::of(kms, &row.volume).await?;
    let unique = unique_bytes(known.as_ref().map(|known| &*known.report));
    let bytes = unique.get(row.id.as_str()).copied();
    Ok(answer(row, bytes))
}

/// Bytes by id of a snapshot.
pub(crate) fn unique_bytes(report: Option<&StoreReport>) -> HashMap<&str, u64> {
    let snapshots = report
        .map(|report| report.snapshots.as_slice())
        .unwrap_or_default();
    snapshots
        .iter()
        .map(|snapshot| (snapshot.id.as_str(), snapshot.unique_bytes))
        .collect()
}

/// As the API gives it.
pub(crate) fn answer(row: SnapshotRow, unique_bytes: Option<u64>) -> Snapshot {
    Snapshot {
        id: row.id,
        name: row.name,
        disk: row.volume,
        disk_name: row.disk_name,
        state: row.state.to_string(),
        size: row.size.unsigned_abs(),
        unique_bytes,
        encrypted: row.encrypted,
        lineage: row.lineage,
        clones: row.clones.unsigned_abs(),
        images: row.images.unsigned_abs(),
        created: row.created,
        schedule: row.schedule,
    }
}
