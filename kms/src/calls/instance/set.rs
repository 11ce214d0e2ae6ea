//! `PATCH /v1/instances/{instance}` (rules A03, A04).
//!
//! While encrypted disks are attached, nothing is declared with which they would not have been attached.

use sqlx::SqliteConnection;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::instances::{self, InstanceRow};
use crate::catalogue::states::DiskState;
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::host::aside::off_runtime;
use crate::host::backends::vhost_socket::SocketAccess;
use crate::rules::attachable;
use crate::views::instance::answer;
use crate::volumes::machine_path::{check_path, check_permitted};
use crate::volumes::{machine_check, service_plan, socket_choice};
use crate::{id, limits};
use sealblk_api::{self, Instance};

/// Changes an instance.
pub(crate) struct SetInstance {
    /// Id or name.
    pub(crate) instance: String,
    /// The call's body.
    pub(crate) options: sealblk_api::SetInstance,
}

impl Operation for SetInstance {
    const CALL: &'static str = "instance.set";
    type Decided = Instance;
    type Answer = Instance;

    fn object(&self) -> &str {
        &self.instance
    }

    /// Asks the virtual machine as an attach does, where something else of it is declared.
    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        let (row, encrypted) = {
            let mut db = kms.catalogue.read().await?;
            let row = find::instance(&mut db, caller, &self.instance).await?;
            let encrypted = encrypted_disk(&mut db, &row.id).await?;
            (row, encrypted)
        };
        let named = self.options.vm_socket.as_ref().and_then(Option::as_deref);
        check_permitted(kms, caller, named).await?;
        if let Some(Some(owner)) = &self.options.socket_owner {
            let owner = owner.clone();
            self.options.socket_owner =
                Some(Some(off_runtime(move || socket_choice::by_number(&owner)).await?));
        }
        let changed = self.changed(&row);
        let is_other = (&row.vm_socket, &row.boot_disk) != (&changed.vm_socket, &changed.boot_disk);
        let Some(disk) = encrypted.filter(|_| is_other) else {
            return Ok(());
        };
        check_paths(&changed)?;
        check_declared(kms, &disk, &row, &changed)?;
        machine_check::check(kms, caller, &disk, &changed, None).await
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Instance> {
        let row = find::instance(tx, caller, &self.instance).await?;
        let sealblk_api::SetInstance {
            name,
            local_storage,
            bare_metal,
            vm_socket,
            boot_disk,
            socket_owner,
            socket_mode,
        } = &self.options;
        if name.is_none()
            && local_storage.is_none()
            && bare_metal.is_none()
            && vm_socket.is_none()
            && boot_disk.is_none()
            && socket_owner.is_none()
            && socket_mode.is_none()
        {
            let text = "nothing is to be changed: give a name, local_storage, bare_metal, vm_socket, boot_disk, socket_owner or socket_mode";
            return Err(Error::new(Code::InvalidRequest, text));
        }
        let mut changed = self.changed(&row);
        self.change_sockets(&mut changed)?;
        check_paths(&changed)?;
        if changed.name != row.name {
            id::check_name(&changed.name)?;
            if instances::has_name(tx, &caller.account, &changed.name).await? {
                let text = format!(
                    "there is an instance {:?} already: choose another name",
                    changed.name
                );
                return Err(Error::new(Code::NameTaken, text));
            }
        }
        if let Some(disk) = encrypted_disk(tx, &row.id).await? {
            check_declared(kms, &disk, &row, &changed)?;
        }
        if changed.vm_socket != row.vm_socket {
            check_nothing_comes_or_goes(tx, &row).await?;
        }
        instances::update(tx, &changed).await?;
        let system_disk = disks::system_of(tx, &row.id).await?.map(|disk| disk.id);
        Ok(answer(changed, system_disk, instances::disks(tx, &row.id).await?))
    }

    async fn act(&self, kms: &Kms, _: &Caller, instance: Instance) -> Result<Instance> {
        if self.options.name.is_some() {
            for disk in &instance.disks {
                service_plan::name_sockets(kms, disk).await;
            }
        }
        Ok(instance)
    }
}

impl SetInstance {
    /// Whose sockets are.
    fn change_sockets(&self, changed: &mut InstanceRow) -> Result<()> {
        if let Some(owner) = &self.options.socket_owner {
            let access = socket_choice::access(owner.as_deref(), None, SocketAccess::OWN)?;
            (changed.socket_uid, changed.socket_gid) = (access.uid, access.gid);
        }
        if let Some(mode) = &self.options.socket_mode {
            let access = socket_choice::access(None, mode.as_deref(), SocketAccess::OWN)?;
            changed.socket_mode = mode.as_ref().map(|_| access.mode);
        }
        Ok(())
    }

    fn changed(&self, row: &InstanceRow) -> InstanceRow {
        let options = &self.options;
        let mut changed = row.clone();
        if let Some(name) = &options.name {
            changed.name.clone_from(name);
        }
        changed.local_storage = options.local_storage.unwrap_or(row.local_storage);
        changed.bare_metal = options.bare_metal.unwrap_or(row.bare_metal);
        if let Some(vm_socket) = &options.vm_socket {
            changed.vm_socket.clone_from(vm_socket);
        }
        if let Some(boot_disk) = &options.boot_disk {
            changed.boot_disk.clone_from(boot_disk);
        }
        changed
    }
}

/// An encrypted disk that is attached to the instance, if there is one.
async fn encrypted_disk(db: &mut SqliteConnection, instance: &str) -> Result<Option<DiskRow>> {
    for (id, _) in instances::disks(db, instance).await? {
        let disk = disks::get(db, &id).await?;
        if disk.encrypted {
            return Ok(Some(disk));
        }
    }
    Ok(None)
}

/// Rule A09: what becomes of a disk that is being plugged in or taken out is asked where it was begun; nobody there would mean that
/// the machine has ended.
async fn check_nothing_comes_or_goes(tx: &mut Write, row: &InstanceRow) -> Result<()> {
    for (disk, name) in instances::disks(tx, &row.id).await? {
        let state = disks::state(tx, &disk).await?;
        if matches!(state, Some(DiskState::Attaching | DiskState::Detaching)) {
            let text = format!(
                "disk {name} is being attached to {} or detached, of which its virtual machine decides: wait until that is done",
                row.name
            );
            return Err(Error::new(Code::InstanceInUse, text));
        }
    }
    Ok(())
}

/// Whether an encrypted disk that is attached may stay where this is declared.
fn check_declared(kms: &Kms, disk: &DiskRow, row: &InstanceRow, changed: &InstanceRow) -> Result<()> {
    if let Err(refused) = attachable::check(kms.profile, disk, changed) {
        let text = format!(
            "encrypted disk {} is attached to {}: detach it first, since it could not be attached then",
            disk.name, row.name
        );
        return Err(Error::because(refused.code(), text, refused));
    }
    if kms.profile.refuse_local_storage && row.vm_socket.is_some() && changed.vm_socket.is_none() {
        let text = format!(
            "encrypted disk {} is attached to {}, whose virtual machine would not be asked any more: detach it first, \
             or give the socket that the machine has now",
            disk.name, row.name
        );
        return Err(Error::new(Code::InstanceInUse, text));
    }
    Ok(())
}

fn check_paths(row: &InstanceRow) -> Result<()> {
    check_path(
        row.vm_socket.as_deref(),
        limits::SOCKET_PATH_BYTES,
        "the virtual machine's socket",
    )?;
    check_path(row.boot_disk.as_deref(), limits::PATH_BYTES, "the boot disk")
}
