//! Disks that are created together with an instance: all of them or none, each metered as a create (rule D11).
//!
//! Until all are made each has its intent open and the instance is not there for anybody; then one transaction ends all
//! intents. What a crash leaves is undone at the next start, disk by disk, and the instance with them.

use super::{clone, create_disk};
use crate::audit::{self, Caller, Decision};
use crate::catalogue::instances::{self, InstanceRow};
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::states::DiskState;
use crate::catalogue::{Write, disks, keys, snapshots, volumes};
use crate::context::{Kms, find};
use crate::error::{Error, Result};
use crate::rules::source::usable_image;
use crate::rules::system_disk::Making;
use crate::rules::{attachable, system_disk};
use crate::volumes::sweep;
use sealblk_api::{CreateDisk, SystemDisk};

/// An instance that is being made with its disks.
#[derive(Debug)]
pub(crate) struct NewInstance {
    pub(crate) row: InstanceRow,
    /// Intents of the instance's disks: first its system disk, if it has one.
    pub(crate) disks: Vec<IntentRow>,
    /// What is copied to the system disk.
    pub(crate) source: Option<IntentRow>,
}

/// The disk that is to be created.
pub(crate) struct ChosenDisk {
    pub(crate) disk: CreateDisk,
    /// A clone of the image whose data is copied to the disk, where that is encrypted anew.
    pub(crate) source: Option<IntentRow>,
}

/// Decides how the system disk is made.
///
/// # Errors
/// The refusals of rules I01, D10 and I04; [`Code::NotFound`].
pub(crate) async fn choose_system_disk(
    kms: &Kms,
    caller: &Caller,
    tx: &mut Write,
    instance: &InstanceRow,
    wanted: &SystemDisk,
) -> Result<ChosenDisk> {
    let image = find::image(tx, caller, &wanted.image).await?;
    let key = match &wanted.key {
        // What is no key is nobody's, and is refused as such later.
        Some(key) => {
            let found = keys::find(tx, &caller.account, key).await?;
            Some(found.map_or_else(|| key.clone(), |row| row.id))
        }
        None => None,
    };
    let making = system_disk::judge(kms.profile, &image, wanted.encrypted, key.as_deref())?;
    let name = wanted.name.clone();
    let disk = CreateDisk {
        name: name.unwrap_or_else(|| format!("{}-system", instance.name)),
        size: wanted.size,
        image: Some(image.id.clone()),
        disk_type: wanted.disk_type.clone(),
        ..CreateDisk::default()
    };
    if making == Making::Inherit {
        return Ok(ChosenDisk { disk, source: None });
    }
    let origin = usable_image(&image)?;
    system_disk::check_larger(wanted, &image)?;
    let snapshot = snapshots::get(tx, &image.snapshot).await?;
    let source = clone::open_source(kms, caller, tx, &snapshot, &origin).await?;
    let disk = CreateDisk {
        size: wanted.size.or(Some(image.size.unsigned_abs())),
        image: None,
        encrypted: Some(true),
        zone: Some(image.zone),
        key,
        kind: Some(image.kind.to_string()),
        disk_type: disk.disk_type.or(Some(image.disk_type.to_string())),
        ..disk
    };
    Ok(ChosenDisk {
        disk,
        source: Some(source),
    })
}

/// Makes a new disk the instance's, if it could be attached to it.
///
/// # Errors
/// Those of an attach (rules A01, A03, A04).
pub(crate) async fn bind_system_disk(
    kms: &Kms,
    tx: &mut Write,
    instance: &InstanceRow,
    disk: &str,
) -> Result<()> {
    disks::bind(tx, disk, &instance.id).await?;
    attachable::check(kms.profile, &disks::get(tx, disk).await?, instance)
}

/// The disks are undone in this order, and a service key that was made for them goes with the last that uses it.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn hand_on_made_key(tx: &mut Write, opened: &mut [IntentRow]) -> Result<()> {
    let made_key = opened.iter_mut().find_map(|intent| {
        let made = intent.made_key.take()?;
        Some((intent.id.clone(), made))
    });
    if let (Some((maker, key)), Some(last)) = (made_key, opened.last_mut()) {
        intents::set_made_key(tx, &maker, None).await?;
        intents::set_made_key(tx, &last.id, Some(&key)).await?;
        last.made_key = Some(key);
    }
    Ok(())
}

/// Makes them, and the instance is there.
///
/// # Errors
/// Those of `disk.create`: then all must be undone.
pub(crate) async fn make(kms: &Kms, decided: &NewInstance) -> Result<()> {
    for intent in &decided.disks {
        create_disk::build(kms, intent).await?;
    }
    if let (Some(source), Some(system)) = (&decided.source, decided.disks.first()) {
        clone::fill(kms, source, &system.disk).await?;
    }
    commit(kms, decided).await?;
    if decided.source.is_some() {
        sweep::sweep_or_leave(kms).await;
    }
    Ok(())
}

async fn commit(kms: &Kms, decided: &NewInstance) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    for intent in &decided.disks {
        disks::set_state(&mut tx, &intent.disk, DiskState::Available).await?;
        intents::close(&mut tx, intent).await?;
    }
    if let (Some(source), Some(system)) = (&decided.source, decided.disks.first()) {
        volumes::set_written(&mut tx, &system.disk, true).await?;
        intents::close(&mut tx, source).await?;
    }
    instances::set_made(&mut tx, &decided.row.id).await?;
    Ok(tx.commit().await?)
}

/// Removes what was made, and refunds. What cannot be undone now stays open, and is undone later.
///
/// # Errors
/// The catalogue's; then the instance goes at the next start.
pub(crate) async fn undo(
    kms: &Kms,
    caller: &Caller,
    call: &str,
    decided: &NewInstance,
    error: &Error,
) -> Result<()> {
    let opened: Vec<_> = decided.disks.iter().chain(&decided.source).collect();
    clone::undo(kms, &opened, error).await;
    let mut tx = kms.catalogue.write().await?;
    audit::append(&mut tx, caller, call, &decided.row.name, Decision::Failed(error)).await?;
    instances::delete(&mut tx, &decided.row.id).await?;
    Ok(tx.commit().await?)
}
