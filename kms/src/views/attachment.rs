//! `GET /v1/attachments`, `/v1/attachments/{attachment}` and `/v1/disks/{disk}/attachments`.

use super::qemu_form;
use crate::audit::Caller;
use crate::catalogue::Page;
use crate::catalogue::attachments::{self, AttachmentRow};
use crate::context::find::{self, not_found};
use crate::context::{Kms, plans};
use crate::error::Result;
use crate::host::backends::by_name;
use crate::host::backends::vhost_socket::SocketAccess;
use crate::host::machines::Rights;
use crate::id;
use sealblk_api::{Attachment, AttachmentList, DiskAttachments, FrontendArguments, QemuVersion, quoted};

/// A page of the account's attachments, for a QEMU of this version. No machine is asked.
pub(crate) async fn list(
    kms: &Kms,
    caller: &Caller,
    page: &Page,
    qemu: Option<QemuVersion>,
) -> Result<AttachmentList> {
    let mut db = kms.catalogue.read().await?;
    let (rows, next) = attachments::list(&mut db, &caller.account, page).await?;
    Ok(AttachmentList {
        attachments: rows.into_iter().map(|row| answer(kms, row, qemu)).collect(),
        next,
    })
}

/// One attachment, for a QEMU of this version or else for its machine's.
pub(crate) async fn show(
    kms: &Kms,
    caller: &Caller,
    wanted: &str,
    qemu: Option<QemuVersion>,
) -> Result<Attachment> {
    let row = {
        let mut db = kms.catalogue.read().await?;
        attachments::find(&mut db, &caller.account, wanted).await?
    };
    let row = row.ok_or_else(|| not_found("attachment", wanted))?;
    let qemu = qemu_form::of(kms, Rights::of(caller.uid), std::slice::from_ref(&row), qemu).await?;
    Ok(answer(kms, row, qemu[0]))
}

/// All attachments of a disk, for a QEMU of this version or else for their machines'.
pub(crate) async fn of_disk(
    kms: &Kms,
    caller: &Caller,
    wanted: &str,
    qemu: Option<QemuVersion>,
) -> Result<DiskAttachments> {
    let rows = {
        let mut db = kms.catalogue.read().await?;
        let disk = find::disk(&mut db, caller, wanted).await?;
        attachments::of_disk(&mut db, &disk.id).await?
    };
    let qemu = qemu_form::of(kms, Rights::of(caller.uid), &rows, qemu).await?;
    let rows = rows.into_iter().zip(qemu);
    Ok(DiskAttachments {
        attachments: rows.map(|(row, qemu)| answer(kms, row, qemu)).collect(),
    })
}

/// The vhost-user socket.
pub(crate) fn socket(kms: &Kms, row: &AttachmentRow) -> String {
    let path = kms.state.vhost_socket(&row.id, row.socket.as_deref());
    path.to_string_lossy().into_owned()
}

/// The path by names that leads to it; none where there is none.
pub(crate) fn named_socket(kms: &Kms, row: &AttachmentRow) -> Option<String> {
    let path = plans::by_name(&kms.state, row)?;
    by_name::leads_to(&path, &row.id).then(|| path.to_string_lossy().into_owned())
}

fn answer(kms: &Kms, row: AttachmentRow, qemu: Option<QemuVersion>) -> Attachment {
    let status = kms.supervisor.status(&row.id);
    let socket = socket(kms, &row);
    let named_socket = named_socket(kms, &row);
    let lasting = named_socket.as_ref().unwrap_or(&socket);
    Attachment {
        name: row.id.clone(),
        attachment: row.id.clone(),
        arguments: FrontendArguments::new(&row.disk, lasting, row.queues, qemu),
        serial: id::serial(&row.disk),
        command: (!row.start).then(|| command(kms, &row)),
        id: row.id,
        disk: row.disk,
        disk_name: row.disk_name,
        instance: row.instance,
        instance_name: row.instance_name,
        state: status.phase.name().to_owned(),
        socket,
        named_socket,
        pid: status.pid,
        queues: row.queues,
        read_only: row.read_only,
        plugged: row.plugged,
        created: row.created,
    }
}

/// The process is the service's. Only the socket of the attachment that it began with is made by it; those of others come
/// to it from the KMS. That one's path comes from there too, so that the command is also right for a process that inherits
/// the socket.
fn command(kms: &Kms, row: &AttachmentRow) -> String {
    let path = |path: std::path::PathBuf| quoted(&path.to_string_lossy());
    let mut text = format!(
        "sealblk --kms {} --attachment {} --token-file {}",
        path(kms.state.backend_socket(&row.service)),
        row.service,
        path(kms.state.token(&row.service)),
    );
    if let Some(uid) = kms.supervisor.user_of(&row.service) {
        text += &format!(" --user {uid}");
    }
    if kms.require_sandbox {
        text += " --require-sandbox";
    }
    if row.id != row.service {
        return text;
    }
    if let Some(uid) = row.socket_uid {
        text += &format!(" --socket-owner {uid}");
        if let Some(gid) = row.socket_gid {
            text += &format!(":{gid}");
        }
    }
    if row.socket_mode != SocketAccess::OWN.mode {
        text += &format!(" --socket-mode {:04o}", row.socket_mode);
    }
    text
}
