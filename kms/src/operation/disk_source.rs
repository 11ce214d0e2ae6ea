//! What a new disk is made of: nothing, or a snapshot, from which it inherits more than its data (rules S02, K05, K09,
//! D10, I04).

use super::disk_kind::{choose_kind, choose_type};
use super::{Kms, find_snapshot};
use crate::api::types::CreateDisk;
use crate::audit::Caller;
use crate::catalogue::snapshots::SnapshotRow;
use crate::catalogue::{Write, lineages, volumes};
use crate::error::{Code, Error, Result};
use sealblk_proto::channel::MAX_BASES;

/// What a new disk will be.
pub(super) struct Source {
    /// In bytes.
    pub(super) size: u64,
    pub(super) encrypted: bool,
    pub(super) store: &'static str,
    pub(super) zone: String,
    pub(super) kind: String,
    pub(super) disk_type: String,
    /// The snapshot that it begins as.
    pub(super) snapshot: Option<SnapshotRow>,
}

impl Source {
    /// From what was asked for.
    ///
    /// # Errors
    /// The refusals of the rules above; [`Code::StoreNotAvailable`], [`Code::InvalidSize`].
    pub(super) async fn of(wanted: &CreateDisk, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Self> {
        let store = choose_store(wanted.store.as_deref())?;
        let kind = choose_kind(wanted.kind.as_deref())?;
        let disk_type = choose_type(wanted.disk_type.as_deref())?;
        let Some(name) = &wanted.snapshot else {
            let Some(size) = wanted.size else {
                let text = "a new disk needs a size, or a snapshot that it begins as";
                return Err(Error::new(Code::InvalidRequest, text));
            };
            return Ok(Source {
                size,
                encrypted: wanted.encrypted.unwrap_or(true),
                store,
                zone: wanted.zone.clone().unwrap_or_else(|| kms.meta.zone.clone()),
                kind: kind.to_owned(),
                disk_type: disk_type.to_owned(),
                snapshot: None,
            });
        };
        let snapshot = find_snapshot(tx, caller, None, name).await?;
        check(wanted, &snapshot)?;
        let volume = volumes::get(tx, &snapshot.volume).await?;
        check_inherited("kind", wanted.kind.as_deref(), &volume.kind)?;
        check_inherited("type", wanted.disk_type.as_deref(), &volume.disk_type)?;
        check_key(tx, &snapshot).await?;
        // Its own bases come after the file that it is made from.
        let bases = 1 + volumes::bases(tx, &snapshot.volume).await?.len();
        if bases > MAX_BASES {
            let text = format!(
                "snapshot {} is of a disk that was made from a snapshot, and so on, {MAX_BASES} times: copy the data \
                 to a new disk instead",
                snapshot.name
            );
            return Err(Error::new(Code::TooMany, text));
        }
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

fn choose_store(wanted: Option<&str>) -> Result<&'static str> {
    match wanted {
        None | Some("layered") => Ok("layered"),
        Some("raw") => Ok("raw"),
        Some(other) => Err(Error::new(
            Code::StoreNotAvailable,
            format!("there is no store {other:?}; use layered or raw"),
        )),
    }
}

fn check(wanted: &CreateDisk, snapshot: &SnapshotRow) -> Result<()> {
    let refuse = |code, text: String| Err(Error::new(code, text));
    let (name, is) = (
        &snapshot.name,
        if snapshot.encrypted { "encrypted" } else { "plain" },
    );
    if snapshot.state != "available" {
        let text = format!("snapshot {name} is in state {}", snapshot.state);
        return refuse(Code::SnapshotNotAvailable, text);
    }
    if wanted.key.is_some() {
        let text = format!("a disk from snapshot {name} has the snapshot's key: leave the key out");
        return refuse(Code::KeyInherited, text);
    }
    if wanted
        .encrypted
        .is_some_and(|encrypted| encrypted != snapshot.encrypted)
    {
        let text = format!(
            "snapshot {name} is {is}, and so is a disk that is made from it: leave the attribute out, or copy the \
             data to a new disk"
        );
        return refuse(Code::EncryptionInherited, text);
    }
    if wanted.store.as_deref() == Some("raw") {
        let text = format!("a disk from snapshot {name} shares its data and must be layered");
        return refuse(Code::StoreNotAvailable, text);
    }
    if wanted.zone.as_ref().is_some_and(|zone| *zone != snapshot.zone) {
        let text = format!("snapshot {name} is in zone {}: leave the zone out", snapshot.zone);
        return refuse(Code::InvalidRequest, text);
    }
    let least = snapshot.size.unsigned_abs();
    if wanted.size.is_some_and(|size| size < least) {
        let text = format!("snapshot {name} has {least} bytes: ask for no size, or for a larger one");
        return refuse(Code::SizeBelowSource, text);
    }
    Ok(())
}

fn check_inherited(what: &str, wanted: Option<&str>, inherited: &str) -> Result<()> {
    match wanted {
        Some(other) if other != inherited => {
            let text = format!("a disk from this snapshot has its {what}, {inherited}: leave the {what} out");
            Err(Error::new(Code::InvalidRequest, text))
        }
        _ => Ok(()),
    }
}

/// Rule A05 from the beginning: a disk that could not be attached is not made.
async fn check_key(tx: &mut Write, snapshot: &SnapshotRow) -> Result<()> {
    let Some(lineage) = &snapshot.lineage else {
        return Ok(());
    };
    lineages::get(tx, lineage).await?.key_now().usable()
}
