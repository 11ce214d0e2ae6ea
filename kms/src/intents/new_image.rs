//! Images with a volume of their own, which holds nothing but their snapshot: copies of images, and those made from files.

use crate::audit::{self, Caller, Decision};
use crate::catalogue::counts::Counted;
use crate::catalogue::intents::{IntentRow, Work};
use crate::catalogue::kinds::{DiskKind, DiskType};
use crate::catalogue::snapshots::{self, NewSnapshot};
use crate::catalogue::states::{ImageState, SnapshotState};
use crate::catalogue::volumes::{self, VolumeRow};
use crate::catalogue::{Write, images};
use crate::context::{Kms, facts};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::intents::Subject;
use crate::rules::disk_kind::check_encryption;
use crate::rules::gate;
use crate::rules::image_name::check_name_free;
use crate::rules::key::new_lineage;
use crate::rules::quota;

/// What is made.
pub(crate) struct NewImage<'a> {
    pub(crate) name: &'a str,
    /// In bytes.
    pub(crate) size: i64,
    pub(crate) encrypted: bool,
    /// The key that the caller has named; none is the service key.
    pub(crate) key: Option<&'a str>,
    pub(crate) zone: &'a str,
    pub(crate) kind: DiskKind,
    pub(crate) disk_type: DiskType,
}

/// Decides on the image, on the volume with its data, and on a snapshot of that, which belongs to the image alone. Gives the
/// image's id, and the intent to make the volume, which counts as a create (rule M01).
///
/// # Errors
/// [`Code::NameTaken`]; those of `disk.create` of encryption and keys.
pub(crate) async fn open(
    kms: &Kms,
    caller: &Caller,
    tx: &mut Write,
    new: &NewImage<'_>,
) -> Result<(String, IntentRow)> {
    id::check_name(new.name)?;
    check_name_free(tx, caller, new.name).await?;
    quota::check(kms, tx, &caller.account, Counted::Images).await?;
    check_encryption(kms.profile, new.encrypted, new.kind, new.disk_type, false)?;
    let (lineage, made_key) = choose_lineage(kms, caller, tx, new).await?;
    let volume = VolumeRow {
        encrypted: new.encrypted,
        zone: new.zone.to_owned(),
        lineage,
        kind: new.kind,
        disk_type: new.disk_type,
        ..VolumeRow::new(id::new(Kind::Disk)?, caller.account.clone(), new.size)
    };
    volumes::insert(tx, &volume).await?;
    let snapshot = NewSnapshot {
        id: id::new(Kind::Snapshot)?,
        account: caller.account.clone(),
        volume: volume.id.clone(),
        name: new.name.to_owned(),
        state: SnapshotState::Hidden,
        size: new.size,
        created: volume.created.clone(),
    };
    snapshots::insert(tx, &snapshot).await?;
    snapshots::hold(tx, &snapshot.id).await?;
    let image = id::new(Kind::Image)?;
    let row = (image.as_str(), caller.account.as_str(), new.name);
    images::insert(tx, row, &snapshot.id, ImageState::Creating).await?;
    let work = Work::CreateDisk {
        snapshot: Some(snapshot.id),
    };
    let subject = Subject {
        volume: &volume.id,
        encrypted: new.encrypted,
        made_key,
        ..Subject::default()
    };
    let intent = kms.open_intent(tx, caller, work, subject).await?;
    let part = caller.apart();
    part.facts.note("disk", volume.id.as_str());
    part.facts.note("size", new.size);
    facts::lineage(&part.facts, volume.lineage.as_deref());
    caller.facts.note("image", image.as_str());
    caller.facts.note_if("snapshot", intent.work.snapshot());
    facts::lineage(&caller.facts, volume.lineage.as_deref());
    audit::append(tx, &part, intent.work.call(), &volume.id, Decision::Allowed).await?;
    Ok((image, intent))
}

/// The lineage, and the service key if that was made for it.
async fn choose_lineage(
    kms: &Kms,
    caller: &Caller,
    tx: &mut Write,
    new: &NewImage<'_>,
) -> Result<(Option<String>, Option<String>)> {
    if new.encrypted {
        gate::check(kms, caller, tx).await?;
        let (lineage, made_key) = new_lineage(kms, caller, tx, new.key).await?;
        return Ok((Some(lineage), made_key));
    }
    if new.key.is_some() {
        let text = "a plain image has no key: leave the key out, or make the image encrypted";
        return Err(Error::new(Code::InvalidRequest, text));
    }
    Ok((None, None))
}
