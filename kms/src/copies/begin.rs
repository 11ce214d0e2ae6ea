//! Copies that are decided on.

use crate::audit::Caller;
use crate::catalogue::copies::CopyRow;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::kinds::Store;
use crate::catalogue::{Write, volumes};
use crate::clock;
use crate::error::Result;
use crate::id::{self, Kind};

/// A copy of so many bytes to a disk, from nothing yet.
pub(crate) async fn to_disk(
    tx: &mut Write,
    caller: &Caller,
    call: &str,
    bytes: i64,
    destination: &DiskRow,
) -> Result<CopyRow> {
    let layered = destination.store == Store::Layered;
    let written = volumes::is_written(tx, &destination.id).await?;
    Ok(CopyRow {
        id: id::new(Kind::Intent)?,
        account: caller.account.clone(),
        call: call.to_owned(),
        source: None,
        destination: Some(destination.id.clone()),
        file: None,
        identity: None,
        size: None,
        format: "raw".to_owned(),
        snapshot: None,
        image: None,
        phase: "copy".to_owned(),
        position: 0,
        total: bytes,
        // A new raw disk reads zeros if it is plain, and noise if not.
        clean: layered || !(written || destination.encrypted),
        unprepared: layered && written,
        trouble: None,
        uid: caller.uid,
        pid: caller.pid,
        request: caller.request.clone(),
        created: clock::now(),
    })
}
