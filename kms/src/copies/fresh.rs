//! Data of a snapshot, read through a clone that is made for this, that nobody sees, and that goes afterwards.
//!
//! Under a lineage of its own (rules I01, I02, D04) it is copied to a new volume while the call waits: both volumes are
//! being created all the time, so that what a crash leaves is undone like any creation. Where it takes the way of all
//! copies, the clone belongs to the copy: it is made before that begins, and is not needed any more when that has ended.

use sealblk_proto::message::{CopyPhase, Mode};

use crate::audit::Caller;
use crate::catalogue::Write;
use crate::catalogue::copies::{CopyRow, Origin};
use crate::catalogue::snapshots::{self, SnapshotRow};
use crate::catalogue::volumes::{self, VolumeRow};
use crate::context::Kms;
use crate::copies::process::{plan_between, progress};
use crate::error::{Error, Result};
use crate::host::backends::code_of;
use crate::host::backends::maintenance::Maintenance;
use crate::id::{self, Kind};
use crate::limits;
use crate::rules::gate;
use crate::rules::key::check_lineage;
use crate::rules::source::check_depth;
use crate::volumes::commands::{self, Unmade};
use crate::volumes::make;

/// Decides on the clone of a snapshot that a copy reads, as the key permits it (rules K02, A05). It needs a copy that goes
/// on; `origin` as in [`open_clone`].
///
/// # Errors
/// [`Code::KmsNotGranted`], and those of [`open_clone`].
pub(crate) async fn open_copied(
    kms: &Kms,
    caller: &Caller,
    tx: &mut Write,
    snapshot: &SnapshotRow,
    origin: &str,
) -> Result<String> {
    if snapshot.encrypted {
        gate::check_grant(kms, caller, tx).await?;
    }
    open_clone(kms, caller, tx, snapshot, origin).await
}

/// Decides on the clone of a snapshot, and gives its id; `origin` is what the snapshot was named as, in words.
///
/// # Errors
/// [`Code::KeyNotUsable`], [`Code::TooMany`].
pub(crate) async fn open_clone(
    kms: &Kms,
    caller: &Caller,
    tx: &mut Write,
    snapshot: &SnapshotRow,
    origin: &str,
) -> Result<String> {
    check_lineage(kms, tx, snapshot.lineage.as_deref()).await?;
    check_depth(tx, snapshot, origin).await?;
    let base = volumes::get(tx, &snapshot.volume).await?;
    let clone = VolumeRow {
        size: snapshot.size,
        base: Some(snapshot.id.clone()),
        ..base.alike(id::new(Kind::Disk)?, caller.account.clone())
    };
    volumes::insert(tx, &clone).await?;
    Ok(clone.id)
}

/// Makes the clone that a copy reads, if it is to read one. Can be repeated.
///
/// # Errors
/// Those of its base and its store.
pub(crate) async fn make_copied(kms: &Kms, copy: &CopyRow) -> Result<()> {
    let Origin::Clone {
        volume: Some(clone),
        snapshot,
    } = &copy.origin
    else {
        return Ok(());
    };
    let base = {
        let mut db = kms.catalogue.read().await?;
        snapshots::get(&mut db, snapshot).await?.volume
    };
    commands::pin(kms, &base, &copy.id, snapshot, clone)
        .await
        .map_err(Unmade::into_error)?;
    make::make_anew(kms, copy.uid, clone).await
}

/// Copies a clone to a new volume; both have been made.
///
/// # Errors
/// Why it was not copied; then both must be undone.
pub(crate) async fn fill(kms: &Kms, source: &str, destination: &str) -> Result<()> {
    let mut pair = [source, destination];
    pair.sort_unstable();
    let _locks = (
        kms.supervisor.lock(pair[0]).await,
        kms.supervisor.lock(pair[1]).await,
    );
    let mode = Mode::Copy {
        phase: CopyPhase::Copy,
        position: 0,
        clean: true,
    };
    let plan = plan_between(kms, source, destination, mode).await?;
    let process = kms.supervisor.maintain(plan).await?;
    let copied = wait(&process).await;
    process.end().await;
    copied
}

/// Waits until all is copied and compared.
async fn wait(process: &Maintenance<'_>) -> Result<()> {
    let mut interval = limits::COPY_LOOK_FIRST;
    loop {
        let progress = progress(process).await?;
        if let Some(failure) = &progress.failure {
            return Err(Error::new(code_of(failure), failure.message.clone()));
        }
        if progress.phase == CopyPhase::Done {
            return Ok(());
        }
        tokio::time::sleep(interval).await;
        interval = (2 * interval).min(limits::COPY_LOOK_MOST);
    }
}
