//! `POST /v1/attachments` (rules K02, A01, A03, A04, A05, A08, A09, D05, D09).

use std::sync::Arc;

use crate::audit::{self, Caller, Decision};
use crate::calls::Operation;
use crate::calls::idempotency::Creates;
use crate::catalogue::attachments::{self, AttachmentRow};
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::instances::InstanceRow;
use crate::catalogue::intents::{IntentRow, Work};
use crate::catalogue::kinds::Store;
use crate::catalogue::states::DiskState;
use crate::catalogue::{Write, meta, store_states, volumes};
use crate::context::{Kms, find, plans};
use crate::error::{Code, Error, Result};
use crate::host::aside::off_runtime;
use crate::host::backends::vhost_socket::SocketAccess;
use crate::id::{self, Kind};
use crate::intents::{Subject, attach, plug};
use crate::rules::{attachable, gate, key};
use crate::views;
use crate::volumes::socket_choice;
use crate::volumes::{machine_check, path, plugging};
use crate::{clock, limits};
use sealblk_api::{Attach, Attachment};

impl Operation for Attach {
    const CALL: &'static str = "attach";
    type Decided = IntentRow;
    type Answer = Attachment;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        let (disk, instance) = {
            let mut db = kms.catalogue.read().await?;
            let disk = find::disk(&mut db, caller, &self.disk).await?;
            (disk, find::instance(&mut db, caller, &self.instance).await?)
        };
        // What is refused anyhow is refused without asking the machine.
        check_state(&disk)?;
        attachable::check(kms.profile, &disk, &instance)?;
        if let Some(owner) = self.socket_owner.take() {
            self.socket_owner = Some(off_runtime(move || socket_choice::by_number(&owner)).await?);
        }
        if let Some(path) = &self.vhost_socket {
            self.vhost_socket = Some(socket_choice::choose(kms, caller, path).await?);
        }
        // By which the machine may have the disk already.
        let named = plans::named(&kms.state, &caller.account, &instance.name, &disk.name);
        let named = named.and_then(|path| path.into_os_string().into_string().ok());
        let socket = self.vhost_socket.as_ref().or(named.as_ref()).map(String::as_str);
        match self.plug {
            true => plugging::check(kms, caller, &disk, &instance, socket).await,
            false => machine_check::check(kms, caller, &disk, &instance, socket).await,
        }
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<IntentRow> {
        let disk = find::disk(tx, caller, &self.disk).await?;
        let instance = find::instance(tx, caller, &self.instance).await?;
        check_state(&disk)?;
        attachable::check(kms.profile, &disk, &instance)?;
        let others = attachments::of_disk(tx, &disk.id).await?;
        check_others(&disk, &instance, &others)?;
        if disk.encrypted {
            gate::check_grant(kms, caller, tx).await?;
        }
        key::check_disk(kms, tx, &disk).await?;
        let row = row_of(self, kms, tx, caller, (&disk, &others), &instance).await?;
        attachments::insert(tx, &row).await?;
        caller.facts.note("attachment", row.id.as_str());
        if self.accept_older {
            accept_older(caller, tx, &disk, &others).await?;
        }
        if !row.read_only {
            volumes::set_written(tx, &disk.id, true).await?;
        }
        if others.is_empty() {
            disks::set_state(tx, &disk.id, DiskState::Attaching).await?;
        }
        let subject = Subject {
            machine: self.plug,
            ..Subject::disk(&disk)
        };
        let work = Work::Attach { attachment: row.id };
        kms.open_intent(tx, caller, work, subject).await
    }

    async fn act(&self, kms: &Kms, caller: &Caller, intent: IntentRow) -> Result<Attachment> {
        attach::carry_out(kms, &intent).await?;
        if intent.machine {
            // Whoever wants the disk's lock does not wait for a virtual machine.
            plug::carry_out(kms, &intent).await?;
        }
        if let Err(error) = path::note_medium_of(kms, &intent.disk).await {
            log::warn!(
                "what {} is on is not noted: {}",
                intent.disk,
                error.full_message()
            );
        }
        views::attachment::show(kms, caller, intent.attachment(), self.qemu_version).await
    }
}

impl Creates for Attach {
    fn created(intent: &IntentRow) -> &str {
        intent.attachment()
    }

    async fn present(kms: &Arc<Kms>, caller: &Caller, id: &str) -> Result<Attachment> {
        views::attachment::show(kms, caller, id, None).await
    }
}

async fn row_of(
    wanted: &Attach,
    kms: &Kms,
    tx: &mut Write,
    caller: &Caller,
    (disk, others): (&DiskRow, &[AttachmentRow]),
    instance: &InstanceRow,
) -> Result<AttachmentRow> {
    let first = others.first();
    if first.is_some_and(|first| first.start) && !wanted.start {
        let text = format!(
            "disk {} is served by a process that the KMS has started, for all its instances: leave --no-start out",
            disk.name
        );
        return Err(Error::new(Code::InvalidRequest, text));
    }
    let start = first.map_or(wanted.start, |first| first.start);
    if wanted.plug && !start {
        let text = "a disk is plugged into a machine when it is served, by a process that the KMS starts: leave --plug out";
        return Err(Error::new(Code::InvalidRequest, text));
    }
    let queues = wanted.queues.unwrap_or(limits::DEFAULT_QUEUES);
    if !(1..=limits::QUEUES).contains(&queues) {
        let text = format!("{queues} queues: a disk has 1 to {}", limits::QUEUES);
        return Err(Error::new(Code::InvalidQueues, text));
    }
    // Of numbers by now: no file is read.
    let access = socket_choice::access(
        wanted.socket_owner.as_deref(),
        wanted.socket_mode.as_deref(),
        access_of(instance, kms.vhost_access),
    )?;
    // Looked at before; whoever binds it looks again.
    if let Some(path) = &wanted.vhost_socket
        && attachments::has_socket(tx, path, kms.state.default_socket_of(path)).await?
    {
        return Err(socket_choice::attached(path));
    }
    let id = id::new(Kind::Attachment)?;
    Ok(AttachmentRow {
        service: first.map_or_else(|| id.clone(), |first| first.service.clone()),
        id,
        account: caller.account.clone(),
        disk: disk.id.clone(),
        disk_name: disk.name.clone(),
        instance: instance.id.clone(),
        instance_name: instance.name.clone(),
        queues,
        read_only: wanted.read_only,
        socket: wanted.vhost_socket.clone(),
        socket_uid: access.uid,
        socket_gid: access.gid,
        socket_mode: access.mode,
        serial: meta::next_serial(tx).await?,
        created: clock::now(),
        request: Some(caller.request.clone()),
        uid: Some(caller.uid),
        start,
        plugged: false,
    })
}

/// Who may connect where a call does not say.
fn access_of(instance: &InstanceRow, daemon: SocketAccess) -> SocketAccess {
    let (uid, gid) = match instance.socket_uid {
        Some(uid) => (Some(uid), instance.socket_gid),
        None => (daemon.uid, daemon.gid),
    };
    SocketAccess {
        uid,
        gid,
        mode: instance.socket_mode.unwrap_or(daemon.mode),
    }
}

fn check_state(disk: &DiskRow) -> Result<()> {
    if disk.attachment.is_some() && !disk.shared {
        let instance = disk.instance.as_deref().unwrap_or("an instance");
        let text = format!(
            "disk {} is attached to {instance} already, and not shared: detach it first",
            disk.name
        );
        return Err(Error::new(Code::AlreadyAttached, text));
    }
    if disk.state != DiskState::Available && !(disk.shared && disk.state == DiskState::InUse) {
        let text = format!(
            "disk {} is {}: only an available disk can be attached, or one in use if it is shared",
            disk.name, disk.state
        );
        return Err(Error::new(Code::DiskNotAvailable, text));
    }
    Ok(())
}

/// The store may be older than what is known of it, for it was put back on purpose; the audit log has a record of that.
async fn accept_older(
    caller: &Caller,
    tx: &mut Write,
    disk: &DiskRow,
    others: &[AttachmentRow],
) -> Result<()> {
    if disk.store != Store::Layered || !others.is_empty() {
        let text = format!(
            "disk {} is raw, or served already: whether its store is older is not looked at, leave --accept-older out",
            disk.name
        );
        return Err(Error::new(Code::InvalidRequest, text));
    }
    if store_states::accept_older(tx, &disk.id).await? {
        audit::append(tx, caller, "attach.accept-older", &disk.id, Decision::Allowed).await?;
    }
    Ok(())
}

/// Rule D09: what has the disk already.
fn check_others(disk: &DiskRow, instance: &InstanceRow, others: &[AttachmentRow]) -> Result<()> {
    if others.iter().any(|other| other.instance == instance.id) {
        let text = format!(
            "disk {} is attached to {} already: an instance has a disk once",
            disk.name, instance.name
        );
        return Err(Error::new(Code::AlreadyAttached, text));
    }
    if others.len() >= limits::ATTACHMENTS {
        let text = format!(
            "disk {} is attached to {} instances, and not to more: detach it from one first",
            disk.name,
            others.len()
        );
        return Err(Error::new(Code::TooManyAttachments, text));
    }
    Ok(())
}
