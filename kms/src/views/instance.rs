//! `GET /v1/instances` and `/v1/instances/{instance}`.

use crate::audit::Caller;
use crate::catalogue::instances::{self, AttachedDisk, InstanceRow};
use crate::catalogue::{Page, disks};
use crate::context::{Kms, find};
use crate::error::Result;
use sealblk_api::{Instance, InstanceList};

/// A page of the account's instances.
pub(crate) async fn list(kms: &Kms, caller: &Caller, page: &Page) -> Result<InstanceList> {
    let mut db = kms.catalogue.read().await?;
    let (rows, next) = instances::list(&mut db, &caller.account, page).await?;
    let ids = || rows.iter().map(|row| row.id.as_str());
    let mut attached = instances::disks_of(&mut db, ids()).await?;
    let mut system_disks = instances::system_disks_of(&mut db, ids()).await?;
    let list = rows.into_iter().map(|row| {
        let system_disk = system_disks.remove(&row.id);
        let attached = attached.remove(&row.id).unwrap_or_default();
        answer(row, system_disk, attached)
    });
    Ok(InstanceList {
        instances: list.collect(),
        next,
    })
}

/// One instance.
pub(crate) async fn show(kms: &Kms, caller: &Caller, wanted: &str) -> Result<Instance> {
    let mut db = kms.catalogue.read().await?;
    let row = find::instance(&mut db, caller, wanted).await?;
    let attached = instances::disks(&mut db, &row.id).await?;
    let system_disk = disks::system_of(&mut db, &row.id).await?.map(|disk| disk.id);
    Ok(answer(row, system_disk, attached))
}

/// As the API gives it.
pub(crate) fn answer(row: InstanceRow, system_disk: Option<String>, attached: Vec<AttachedDisk>) -> Instance {
    let (disks, disk_names) = attached.into_iter().unzip();
    Instance {
        id: row.id,
        name: row.name,
        zone: row.zone,
        local_storage: row.local_storage,
        bare_metal: row.bare_metal,
        vm_socket: row.vm_socket,
        boot_disk: row.boot_disk,
        socket_owner: row.socket_uid.map(|uid| match row.socket_gid {
            Some(gid) => format!("{uid}:{gid}"),
            None => uid.to_string(),
        }),
        socket_mode: row.socket_mode.map(|mode| format!("{mode:04o}")),
        system_disk,
        disks,
        disk_names,
        created: row.created,
    }
}
