//! A disk in the running virtual machine of its instance: plugged in, looked for, and taken out (rule A09), with the rights of the
//! caller. What the machine can write to (rule A03) is asked on the same connection.

use std::path::Path;

use crate::audit::Caller;
use crate::catalogue::attachments::AttachmentRow;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::instances::InstanceRow;
use crate::catalogue::intents::IntentRow;
use crate::catalogue::{attachments, disks};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::host::machines::{self, Device, Disk, Machine, MachineError, Rights};
use crate::limits;
use crate::volumes::machine_check;

/// Before anything is done: whether the machine could be given the disk, which is to be served on `socket`.
///
/// # Errors
/// [`Code::MachineNotRunning`], [`Code::MachineRefuses`], [`Code::MachineSilent`]; those of rule A03.
pub(crate) async fn check(
    kms: &Kms,
    caller: &Caller,
    disk: &DiskRow,
    instance: &InstanceRow,
    socket: Option<&str>,
) -> Result<()> {
    let rights = Rights::of(caller.uid);
    let (mut machine, devices) = running(instance, rights).await?;
    machine_check::check_devices(kms, rights, (disk, instance), socket, devices).await?;
    let room = machine.check_room(&disk.id).await;
    room.map_err(|error| failure(instance, error))
}

/// Whether the instance has a machine that could be asked.
///
/// # Errors
/// [`Code::MachineNotRunning`].
pub(crate) fn check_known(instance: &InstanceRow) -> Result<()> {
    if instance.vm_socket.is_some() {
        return Ok(());
    }
    let text = format!(
        "where the virtual machine of instance {0} is asked is not known: `sealctl instance set {0} --vm-socket PATH`",
        instance.name
    );
    Err(Error::new(Code::MachineNotRunning, text))
}

/// Plugs the disk of an attach in, which is served.
///
/// # Errors
/// As [`check`]. After [`Code::MachineSilent`] it may be there all the same.
pub(crate) async fn plug(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let of = Rows::of(kms, intent).await?;
    let (mut machine, devices) = running(&of.instance, of.rights).await?;
    let rows = (&of.disk, &of.instance);
    machine_check::check_devices(kms, of.rights, rows, None, devices).await?;
    let socket = kms
        .state
        .vhost_socket(&of.attachment.id, of.attachment.socket.as_deref());
    let disk = Disk {
        id: of.disk.id,
        socket: socket.to_string_lossy().into_owned(),
        queues: of.attachment.queues,
    };
    let plugged = machine.plug(&disk).await;
    plugged.map_err(|error| failure(&of.instance, error))
}

/// Whether the machine has the disk. If not, nothing is left of it there.
///
/// # Errors
/// [`Code::MachineSilent`] and others.
pub(crate) async fn is_there(kms: &Kms, intent: &IntentRow) -> Result<bool> {
    let of = Rows::of(kms, intent).await?;
    let Some((mut machine, _)) = open(&of.instance, of.rights).await? else {
        return Ok(false);
    };
    let looked = async {
        let there = machine.has(&of.disk.id).await?;
        if !there {
            machine.clean(&of.disk.id).await?;
        }
        Ok(there)
    };
    looked.await.map_err(|error| failure(&of.instance, error))
}

/// Takes the disk of a detach out. A machine that does not run has nothing.
///
/// # Errors
/// [`Code::GuestDoesNotAnswer`], [`Code::MachineRefuses`], [`Code::MachineSilent`]: then it is there, or may be.
pub(crate) async fn unplug(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let of = Rows::of(kms, intent).await?;
    let Some((mut machine, _)) = open(&of.instance, of.rights).await? else {
        return Ok(());
    };
    let unplugged = machine.unplug(&of.disk.id).await;
    unplugged.map_err(|error| failure(&of.instance, error))
}

/// What an intent is about, and with whose rights it is done.
struct Rows {
    attachment: AttachmentRow,
    disk: DiskRow,
    instance: InstanceRow,
    rights: Rights,
}

impl Rows {
    async fn of(kms: &Kms, intent: &IntentRow) -> Result<Self> {
        let mut db = kms.catalogue.read().await?;
        let attachment = attachments::find(&mut db, &intent.account, intent.attachment()).await?;
        let attachment = attachment.ok_or_else(|| find::not_found("attachment", intent.attachment()))?;
        Ok(Rows {
            disk: disks::get(&mut db, &intent.disk).await?,
            instance: find::instance(&mut db, &intent.caller(), &attachment.instance).await?,
            attachment,
            rights: Rights::of(intent.uid),
        })
    }
}

async fn running(instance: &InstanceRow, rights: Rights) -> Result<(Machine, Vec<Device>)> {
    check_known(instance)?;
    open(instance, rights).await?.ok_or_else(|| {
        let text = format!(
            "no virtual machine of instance {} runs: attach the disk without --plug, and start the machine with it",
            instance.name
        );
        Error::new(Code::MachineNotRunning, text)
    })
}

/// None does not run.
async fn open(instance: &InstanceRow, rights: Rights) -> Result<Option<(Machine, Vec<Device>)>> {
    let Some(socket) = &instance.vm_socket else {
        return Ok(None);
    };
    let opened = machines::open(Path::new(socket), rights).await;
    opened.map_err(|error| failure(instance, error))
}

fn failure(instance: &InstanceRow, error: MachineError) -> Error {
    let name = &instance.name;
    if matches!(error, MachineError::GuestSilent) {
        let text = format!(
            "the guest of instance {name} has not let go of the disk within {} s, and keeps it: the disk is attached as it was; \
             see that the guest runs and does not use it, and repeat",
            limits::UNPLUG_TIME.as_secs()
        );
        return Error::new(Code::GuestDoesNotAnswer, text);
    }
    if error.is_refusal() {
        let text = format!("the virtual machine of instance {name} refuses");
        return Error::because(Code::MachineRefuses, text, error);
    }
    let socket = instance.vm_socket.as_deref().unwrap_or_default();
    let text = format!(
        "the virtual machine of instance {name} does not answer at {socket}: `sealctl disk show` says what has become of the disk \
         when it does"
    );
    Error::because(Code::MachineSilent, text, error)
}
