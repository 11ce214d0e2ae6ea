//! Which QEMU the arguments of attachments are for.

use std::path::PathBuf;

use tokio::task::JoinSet;

use crate::catalogue::attachments::AttachmentRow;
use crate::catalogue::instances;
use crate::context::Kms;
use crate::error::Result;
use crate::host::machines::{self, Rights};
use sealblk_api::QemuVersion;

/// The version that was asked for; otherwise, of each attachment, that of its instance's virtual machine, if its socket is
/// known and it runs and says so to the caller. All machines are asked at once.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn of(
    kms: &Kms,
    rights: Rights,
    rows: &[AttachmentRow],
    asked: Option<QemuVersion>,
) -> Result<Vec<Option<QemuVersion>>> {
    let mut versions = vec![asked; rows.len()];
    if asked.is_some() {
        return Ok(versions);
    }
    let mut questions = JoinSet::new();
    let mut db = kms.catalogue.read().await?;
    for (index, row) in rows.iter().enumerate() {
        if let Some(socket) = instances::vm_socket(&mut db, &row.instance).await? {
            questions.spawn(async move { (index, version(socket.into(), rights).await) });
        }
    }
    drop(db);
    while let Some(Ok((index, version))) = questions.join_next().await {
        versions[index] = version;
    }
    Ok(versions)
}

async fn version(socket: PathBuf, rights: Rights) -> Option<QemuVersion> {
    machines::qemu_version(&socket, rights)
        .await
        .unwrap_or_else(|error| {
            log::info!("{} does not say which QEMU it is: {error}", socket.display());
            None
        })
}
