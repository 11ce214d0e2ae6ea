//! The snapshot of a volume that holds an image and nothing else: it is taken when all data is there.

use sealblk_proto::message::Change;

use crate::catalogue::copies::{CopyRow, Destination};
use crate::catalogue::images;
use crate::context::Kms;
use crate::error::Result;
use crate::volumes::commands::{self, Unmade};

/// Takes the snapshot, when all data is in the volume. The same operation takes it once.
///
/// # Errors
/// The store's.
pub(crate) async fn take(kms: &Kms, volume: &str, operation: &str, snapshot: &str) -> Result<()> {
    let change = Change::Snapshot {
        snapshot: snapshot.to_owned(),
    };
    let taken = commands::change(kms, volume, operation, change).await;
    taken.map_err(Unmade::into_error)
}

/// All data is in the image's volume: takes its snapshot, and gives the snapshot's id. Can be repeated.
///
/// # Errors
/// The store's; [`Code::NotFound`] if the image has been deleted.
pub(crate) async fn take_copied(kms: &Kms, copy: &CopyRow) -> Result<Option<String>> {
    let Destination::Image { volume, image } = &copy.destination else {
        return Ok(None);
    };
    let snapshot = {
        let mut db = kms.catalogue.read().await?;
        images::get(&mut db, image).await?.snapshot
    };
    take(kms, volume, &copy.id, &snapshot).await?;
    Ok(Some(snapshot))
}
