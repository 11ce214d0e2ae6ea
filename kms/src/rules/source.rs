//! What a new disk is made of: nothing, a snapshot, or an image, which is a name of a snapshot. From these it inherits more
//! than its data (rules S02, K05, K09, D10, I04).

use super::disk_kind::{choose_kind, choose_type};
use crate::audit::Caller;
use crate::catalogue::copies::CopyRow;
use crate::catalogue::images::ImageRow;
use crate::catalogue::kinds::{DiskKind, DiskType, Store};
use crate::catalogue::named::Named;
use crate::catalogue::snapshots::{self, SnapshotRow};
use crate::catalogue::states::{ImageState, SnapshotState};
use crate::catalogue::{Write, volumes};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::rules::key::check_lineage;
use sealblk_api::CreateDisk;
use sealblk_proto::channel::MAX_BASES;

/// What a new disk will be.
pub(crate) struct Source {
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) encrypted: bool,
    pub(crate) store: Store,
    pub(crate) zone: String,
    pub(crate) kind: DiskKind,
    pub(crate) disk_type: DiskType,
    /// The snapshot that it begins as.
    pub(crate) snapshot: Option<SnapshotRow>,
}

impl Source {
    /// From what was asked for.
    ///
    /// # Errors
    /// The refusals of the rules above; [`Code::StoreNotAvailable`], [`Code::InvalidSize`].
    pub(crate) async fn of(wanted: &CreateDisk, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Self> {
        let store = choose_store(wanted.store.as_deref())?;
        let kind = choose_kind(wanted.kind.as_deref())?;
        let disk_type = choose_type(wanted.disk_type.as_deref())?;
        let Some((origin, snapshot)) = origin(wanted, caller, tx).await? else {
            let Some(size) = wanted.size else {
                let text = "a new disk needs a size, or a snapshot or an image that it begins as";
                return Err(Error::new(Code::InvalidRequest, text));
            };
            return Ok(Source {
                size,
                encrypted: wanted.encrypted.unwrap_or(true),
                store,
                zone: wanted.zone.clone().unwrap_or_else(|| kms.meta.zone.clone()),
                kind,
                disk_type,
                snapshot: None,
            });
        };
        check(wanted, &origin, &snapshot)?;
        let volume = volumes::get(tx, &snapshot.volume).await?;
        check_inherited("kind", wanted.kind.as_deref(), &origin, volume.kind.name())?;
        check_inherited(
            "type",
            wanted.disk_type.as_deref(),
            &origin,
            volume.disk_type.name(),
        )?;
        // Rule A05 from the beginning: a disk that could not be attached is not made.
        check_lineage(kms, tx, snapshot.lineage.as_deref()).await?;
        check_depth(tx, &snapshot, &origin).await?;
        Ok(Source {
            size: wanted.size.unwrap_or(snapshot.size.unsigned_abs()),
            encrypted: snapshot.encrypted,
            store,
            zone: snapshot.zone.clone(),
            kind: volume.kind,
            disk_type: volume.disk_type,
            snapshot: Some(snapshot),
        })
    }
}

/// The snapshot that a disk is to begin as, and the words for what it was named as: `snapshot one`, `image base`.
async fn origin(
    wanted: &CreateDisk,
    caller: &Caller,
    tx: &mut Write,
) -> Result<Option<(String, SnapshotRow)>> {
    match (&wanted.snapshot, &wanted.image) {
        (None, None) => Ok(None),
        (Some(name), None) => {
            let snapshot = find::snapshot(tx, caller, None, name).await?;
            Ok(Some((usable_snapshot(&snapshot)?, snapshot)))
        }
        (None, Some(name)) => {
            let image = find::image(tx, caller, name).await?;
            let words = usable_image(&image)?;
            Ok(Some((words, snapshots::get(tx, &image.snapshot).await?)))
        }
        (Some(_), Some(_)) => {
            let text = "a disk begins either as a snapshot or as an image: name one of them";
            Err(Error::new(Code::InvalidRequest, text))
        }
    }
}

/// Words for a snapshot that something can be made from.
///
/// # Errors
/// [`Code::SnapshotNotAvailable`].
pub(crate) fn usable_snapshot(snapshot: &SnapshotRow) -> Result<String> {
    let words = format!("snapshot {}", snapshot.name);
    if snapshot.state != SnapshotState::Available {
        let text = format!("{words} is in state {}: choose another", snapshot.state);
        return Err(Error::new(Code::SnapshotNotAvailable, text));
    }
    Ok(words)
}

/// Words for an image that something can be made from.
///
/// # Errors
/// [`Code::ImageNotAvailable`].
pub(crate) fn usable_image(image: &ImageRow) -> Result<String> {
    let words = format!("image {}", image.name);
    if image.state != ImageState::Available || image.snapshot_state == SnapshotState::Error {
        let text = format!("{words} is being made, or its data cannot be read: choose another");
        return Err(Error::new(Code::ImageNotAvailable, text));
    }
    Ok(words)
}

/// An export goes on.
pub(crate) fn being_written(image: &ImageRow, copy: &CopyRow) -> Error {
    let text = format!(
        "image {} is being written to {}: try again when that has ended, or cancel it with `sealctl image export --cancel`",
        image.name,
        copy.file().map_or("a file", |file| &file.path)
    );
    Error::new(Code::ImageNotAvailable, text)
}

/// Whether the files that a disk from a snapshot reads are not too many; `origin` is what the snapshot was named as.
///
/// # Errors
/// [`Code::TooMany`].
pub(crate) async fn check_depth(tx: &mut Write, snapshot: &SnapshotRow, origin: &str) -> Result<()> {
    // The file that the disk is made from, and that file's bases.
    let bases = 1 + volumes::bases(tx, &snapshot.volume).await?.len();
    if bases > MAX_BASES {
        let text = format!(
            "{origin} is of a disk that was made from a snapshot, and so on, {MAX_BASES} times: copy the data to a \
             new disk instead"
        );
        return Err(Error::new(Code::TooMany, text));
    }
    Ok(())
}

fn choose_store(wanted: Option<&str>) -> Result<Store> {
    let Some(wanted) = wanted else {
        return Ok(Store::Layered);
    };
    Store::named(wanted).ok_or_else(|| {
        let text = format!("there is no store {wanted:?}; use {}", Store::names(" or "));
        Error::new(Code::StoreNotAvailable, text)
    })
}

fn check(wanted: &CreateDisk, origin: &str, snapshot: &SnapshotRow) -> Result<()> {
    let refuse = |code, text: String| Err(Error::new(code, text));
    let is = if snapshot.encrypted { "encrypted" } else { "plain" };
    if wanted.key.is_some() {
        let text = format!("a disk from {origin} has the key of that, if any: leave the key out");
        return refuse(Code::KeyInherited, text);
    }
    if wanted
        .encrypted
        .is_some_and(|encrypted| encrypted != snapshot.encrypted)
    {
        let text = format!(
            "{origin} is {is}, and so is a disk that is made from it: leave the attribute out, or copy the data to a new \
             disk"
        );
        return refuse(Code::EncryptionInherited, text);
    }
    if wanted.store.as_deref() == Some(Store::Raw.name()) {
        let text = format!("a disk from {origin} shares its data and must be layered");
        return refuse(Code::StoreNotAvailable, text);
    }
    if wanted.zone.as_ref().is_some_and(|zone| *zone != snapshot.zone) {
        let text = format!("{origin} is in zone {}: leave the zone out", snapshot.zone);
        return refuse(Code::InvalidRequest, text);
    }
    let least = snapshot.size.unsigned_abs();
    if wanted.size.is_some_and(|size| size < least) {
        let text = format!("{origin} has {least} bytes: ask for no size, or for a larger one");
        return refuse(Code::SizeBelowSource, text);
    }
    Ok(())
}

fn check_inherited(what: &str, wanted: Option<&str>, origin: &str, inherited: &str) -> Result<()> {
    match wanted {
        Some(other) if other != inherited => {
            let text = format!("a disk from {origin} has its {what}, {inherited}: leave the {what} out");
            Err(Error::new(Code::InvalidRequest, text))
        }
        _ => Ok(()),
    }
}
