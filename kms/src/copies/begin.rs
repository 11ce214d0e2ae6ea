//! Copies that are decided on.

use crate::audit::Caller;
use crate::catalogue::copies::{CopyRow, Destination, Origin, Phase};
use crate::catalogue::counts::Counted;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::kinds::Store;
use crate::catalogue::{Write, copies, volumes};
use crate::clock;
use crate::context::Kms;
use crate::error::Result;
use crate::id::{self, Kind};
use crate::rules::quota;

/// A copy of so many bytes, from nothing yet, to where zeros are read and nothing has to be prepared.
pub(crate) fn copy(
    id: String,
    caller: &Caller,
    call: &str,
    (origin, destination): (Origin, Destination),
    bytes: i64,
) -> CopyRow {
    caller.facts.note("copy", id.as_str());
    caller.facts.note_if("file", file_of(&origin, &destination));
    CopyRow {
        id,
        account: caller.account.clone(),
        call: call.to_owned(),
        origin,
        destination,
        phase: Phase::Copy,
        position: 0,
        total: bytes,
        clean: true,
        unprepared: false,
        trouble: None,
        uid: caller.uid,
        pid: caller.pid,
        request: caller.request.clone(),
        created: clock::now(),
    }
}

/// The file at one of the ends.
fn file_of<'a>(origin: &'a Origin, destination: &'a Destination) -> Option<&'a str> {
    match (origin, destination) {
        (_, Destination::File { file, .. }) | (Origin::File { file, .. }, _) => Some(&file.path),
        _ => None,
    }
}

/// A copy of so many bytes to a disk, from nothing yet.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn to_disk(
    tx: &mut Write,
    caller: &Caller,
    call: &str,
    (origin, bytes): (Origin, i64),
    destination: &DiskRow,
) -> Result<CopyRow> {
    let id = id::new(Kind::Intent)?;
    let layered = destination.store == Store::Layered;
    let written = volumes::is_written(tx, &destination.id).await?;
    let ends = (origin, Destination::Disk(destination.id.clone()));
    Ok(CopyRow {
        // A new raw disk reads zeros if it is plain, and noise if not.
        clean: layered || !(written || destination.encrypted),
        unprepared: layered && written,
        ..copy(id, caller, call, ends, bytes)
    })
}

/// Decides on a copy, if its account may have one more.
///
/// # Errors
/// [`Code::TooMany`](crate::error::Code::TooMany).
pub(crate) async fn insert(kms: &Kms, tx: &mut Write, row: &CopyRow) -> Result<()> {
    quota::check(kms, tx, &row.account, Counted::Copies).await?;
    Ok(copies::insert(tx, row).await?)
}
