//! `GET /v1/attachments` and `/v1/attachments/{attachment}`.

use super::{Kms, not_found, socket_choice};
use crate::api::types::{Attachment, AttachmentList};
use crate::audit::Caller;
use crate::catalogue::Page;
use crate::catalogue::attachments::{self, AttachmentRow};
use crate::error::Result;

/// A page of the account's attachments.
pub(crate) async fn list(kms: &Kms, caller: &Caller, page: &Page) -> Result<AttachmentList> {
    let mut db = kms.catalogue.read().await?;
    let (rows, next) = attachments::list(&mut db, &caller.account, page).await?;
    Ok(AttachmentList {
        attachments: rows.into_iter().map(|row| answer(kms, row)).collect(),
        next,
    })
}

/// One attachment.
pub(crate) async fn show(kms: &Kms, caller: &Caller, wanted: &str) -> Result<Attachment> {
    let mut db = kms.catalogue.read().await?;
    let row = attachments::find(&mut db, &caller.account, wanted).await?;
    row.map(|row| answer(kms, row))
        .ok_or_else(|| not_found("attachment", wanted))
}

fn answer(kms: &Kms, row: AttachmentRow) -> Attachment {
    let status = kms.supervisor.status(&row.id);
    let socket = kms
        .state
        .vhost_socket(&row.id, row.socket.as_deref())
        .to_string_lossy()
        .into_owned();
    Attachment {
        name: row.id.clone(),
        attachment: row.id.clone(),
        qemu_args: qemu_args(&row.disk, &socket, row.queues),
        cloud_hypervisor_args: cloud_hypervisor_args(&socket, row.queues),
        command: (!row.start).then(|| command(kms, &row, &socket)),
        id: row.id,
        disk: row.disk,
        instance: row.instance,
        state: status.state.to_owned(),
        socket,
        pid: status.pid,
        queues: row.queues,
        read_only: row.read_only,
        created: row.created,
    }
}

fn qemu_args(disk: &str, socket: &str, queues: u16) -> String {
    // In an option's value QEMU takes two commas for one.
    let path = quoted(&socket.replace(',', ",,"));
    format!(
        "-object memory-backend-memfd,id=mem0,size=4G,share=on -machine memory-backend=mem0 \
         -chardev socket,id={disk},path={path},reconnect=1 \
         -device vhost-user-blk-pci,chardev={disk},num-queues={queues}"
    )
}

fn cloud_hypervisor_args(socket: &str, queues: u16) -> String {
    let path = quoted(socket);
    format!(
        "--memory size=4G,shared=on --disk vhost_user=on,socket={path},num_queues={queues},queue_size=128"
    )
}

/// The process is the service's. Only the socket of the attachment that it began with is made by it; those of others come
/// to it from the KMS.
fn command(kms: &Kms, row: &AttachmentRow, socket: &str) -> String {
    let path = |path: std::path::PathBuf| quoted(&path.to_string_lossy());
    let mut text = format!(
        "sealblk --kms {} --attachment {} --token-file {}",
        path(kms.state.backend_socket(&row.service)),
        row.service,
        path(kms.state.token(&row.service)),
    );
    if row.id != row.service {
        return text;
    }
    text += &format!(" --socket {}", quoted(socket));
    if let Some(uid) = row.socket_uid {
        text += &format!(" --socket-owner {uid}");
        if let Some(gid) = row.socket_gid {
            text += &format!(":{gid}");
        }
    }
    if row.socket_mode != socket_choice::DEFAULT_MODE {
        text += &format!(" --socket-mode {:04o}", row.socket_mode);
    }
    text
}

/// For pasting into a shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-,+=:@%".contains(&byte);
    if text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_can_be_pasted() {
        assert_eq!(
            qemu_args("disk-1", "/run/a,b", 2),
            "-object memory-backend-memfd,id=mem0,size=4G,share=on -machine memory-backend=mem0 \
             -chardev socket,id=disk-1,path=/run/a,,b,reconnect=1 \
             -device vhost-user-blk-pci,chardev=disk-1,num-queues=2"
        );
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
        assert!(cloud_hypervisor_args("/s", 3).ends_with("socket=/s,num_queues=3,queue_size=128"));
    }
}
