//! The objects that a caller names.

use sqlx::SqliteConnection;

use crate::audit::Caller;
use crate::catalogue::bin::{self, BinRow};
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::images::{self, ImageRow};
use crate::catalogue::instances::{self, InstanceRow};
use crate::catalogue::snapshots::{self, SnapshotRow};
use crate::context::facts;
pub(crate) use crate::error::not_found;
use crate::error::{Code, Error, Result};

/// The caller's disk of this id or name.
///
/// # Errors
/// [`Code::NotFound`]; [`Code::DiskDeleted`].
pub(crate) async fn disk(db: &mut SqliteConnection, caller: &Caller, wanted: &str) -> Result<DiskRow> {
    if let Some(row) = disks::find(db, &caller.account, wanted).await? {
        facts::disk(&caller.facts, &row);
        return Ok(row);
    }
    let text = match &bin::find(db, &caller.account, wanted).await?[..] {
        [] => return Err(not_found("disk", wanted)),
        [only] => {
            facts::disk(&caller.facts, &only.disk);
            format!(
                "disk {} ({1}) was deleted: `sealctl disk restore {1}` brings it back, and `sealctl disk delete {1} --now` removes it",
                only.disk.name, only.disk.id
            )
        }
        several => format!(
            "{} disks {wanted:?} were deleted: `sealctl disk list --deleted` lists them, name one by its id",
            several.len()
        ),
    };
    Err(Error::new(Code::DiskDeleted, text))
}

/// The caller's disk of this id or name, or in the bin, by its id alone, so that a call that is repeated with a name reaches no
/// other disk.
///
/// # Errors
/// As [`disk`].
pub(crate) async fn disk_or_deleted(
    db: &mut SqliteConnection,
    caller: &Caller,
    wanted: &str,
) -> Result<DiskRow> {
    match disk(db, caller, wanted).await {
        Err(error) if error.code() == Code::DiskDeleted => {
            let mut found = bin::find(db, &caller.account, wanted).await?.into_iter();
            let named = found.find(|row| row.disk.id == wanted);
            let row = named.map(|row| row.disk).ok_or(error)?;
            facts::disk(&caller.facts, &row);
            Ok(row)
        }
        found => found,
    }
}

/// The caller's disk in the bin of this id, or of this name if that is unique there.
///
/// # Errors
/// [`Code::NotFound`], [`Code::AmbiguousName`].
pub(crate) async fn deleted_disk(db: &mut SqliteConnection, caller: &Caller, wanted: &str) -> Result<BinRow> {
    let mut found = bin::find(db, &caller.account, wanted).await?;
    match (found.pop(), found.len()) {
        (Some(only), 0) => {
            facts::disk(&caller.facts, &only.disk);
            Ok(only)
        }
        (Some(_), others) => {
            let text = format!(
                "{} deleted disks had the name {wanted:?}: name one by its id, as `sealctl disk list --deleted` has it",
                others + 1
            );
            Err(Error::new(Code::AmbiguousName, text))
        }
        (None, _) => {
            let text =
                format!("there is no deleted disk {wanted:?}: `sealctl disk list --deleted` lists them");
            Err(Error::new(Code::NotFound, text))
        }
    }
}

/// The caller's instance of this id or name.
///
/// # Errors
/// [`Code::NotFound`].
pub(crate) async fn instance(
    db: &mut SqliteConnection,
    caller: &Caller,
    wanted: &str,
) -> Result<InstanceRow> {
    let row = instances::find(db, &caller.account, wanted)
        .await?
        .ok_or_else(|| not_found("instance", wanted))?;
    caller.facts.note("instance", row.id.as_str());
    Ok(row)
}

/// The caller's snapshot of this id, of this name if that is unique in the account, or of this `DISK/NAME`; with
/// `of`, one of that disk's.
///
/// # Errors
/// [`Code::NotFound`], [`Code::AmbiguousName`].
pub(crate) async fn snapshot(
    db: &mut SqliteConnection,
    caller: &Caller,
    of: Option<&DiskRow>,
    wanted: &str,
) -> Result<SnapshotRow> {
    let (volume, name) = match (of, wanted.split_once('/')) {
        (Some(disk), _) => (Some(disk.id.clone()), wanted),
        (None, Some((named, name))) => (Some(disk(db, caller, named).await?.id), name),
        (None, None) => (None, wanted),
    };
    let mut found = snapshots::find(db, &caller.account, volume.as_deref(), name).await?;
    match (found.pop(), found.len()) {
        (Some(only), 0) => {
            facts::snapshot(&caller.facts, &only);
            Ok(only)
        }
        (Some(_), others) => {
            let text = format!(
                "{} disks have a snapshot {name:?}: name it by its id, or as DISK/{name}",
                others + 1
            );
            Err(Error::new(Code::AmbiguousName, text))
        }
        (None, _) => match of {
            Some(disk) => Err(Error::new(
                Code::NotFound,
                format!("disk {} has no snapshot {wanted:?}", disk.name),
            )),
            None => Err(not_found("snapshot", wanted)),
        },
    }
}

/// The caller's image of this id or name, or one that is shared with the caller's account of this id or `ACCOUNT/NAME`.
///
/// # Errors
/// [`Code::NotFound`].
pub(crate) async fn image(db: &mut SqliteConnection, caller: &Caller, wanted: &str) -> Result<ImageRow> {
    let found = images::find(db, &caller.account, wanted).await?;
    let row = found.ok_or_else(|| not_found("image", wanted))?;
    facts::image(&caller.facts, &row);
    Ok(row)
}

/// The image with this id or name, if the caller's account owns it; see [`image`] for the others.
///
/// # Errors
/// [`Code::NotFound`]; [`Code::NotAuthorized`] if it is another account's.
pub(crate) async fn own_image(db: &mut SqliteConnection, caller: &Caller, wanted: &str) -> Result<ImageRow> {
    let row = image(db, caller, wanted).await?;
    if row.account != caller.account {
        let text = format!(
            "image {} is shared by account {} for disks to be made from it: ask there for anything else",
            row.name, row.account
        );
        return Err(Error::new(Code::NotAuthorized, text));
    }
    Ok(row)
}
