//! The start of a daemon: takes over living backends, ends what a crash has left open, and starts what is missing.

use super::{Kms, attach, detach, disk_create, disk_delete};
use crate::catalogue::attachments::{self, AttachmentRow};
use crate::catalogue::disks;
use crate::catalogue::intents::{self, IntentRow};
use crate::error::{Code, Error, Result};
use crate::supervisor::{Plan, Tokens};
use sealblk_proto::token::TokenHash;

/// Brings catalogue, files and backends together again.
///
/// # Errors
/// The catalogue's. What fails for one attachment or intent is logged, and the others go on.
pub(crate) async fn recover(kms: &Kms) -> Result<()> {
    let (rows, open) = {
        let mut db = kms.catalogue.read().await?;
        (attachments::all(&mut db).await?, intents::all(&mut db).await?)
    };
    for row in &rows {
        if let Err(error) = adopt(kms, row).await {
            log::error!("{}: it cannot be served: {}", row.id, error.full_message());
        }
    }
    let ours: Vec<_> = rows
        .iter()
        .filter(|row| row.start)
        .map(|row| row.id.clone())
        .collect();
    kms.supervisor.wait_for_backends(&ours).await;
    for intent in &open {
        if let Err(error) = end(kms, intent).await {
            log::error!(
                "{} of {} stays open: {}",
                intent.call,
                intent.disk,
                error.full_message()
            );
        }
    }
    for row in remaining(kms).await? {
        kms.supervisor.supervise(&row.id);
    }
    report_orphans(kms).await
}

async fn adopt(kms: &Kms, row: &AttachmentRow) -> Result<()> {
    let disk = {
        let mut db = kms.catalogue.read().await?;
        disks::get(&mut db, &row.disk).await?
    };
    let hash = |bytes: &Option<Vec<u8>>| {
        bytes
            .as_deref()
            .and_then(|bytes| bytes.try_into().ok())
            .map(TokenHash)
    };
    let tokens = Tokens {
        current: hash(&row.token),
        next: hash(&row.next_token),
    };
    kms.supervisor.adopt(Plan::new(&kms.state, &disk, row), tokens)
}

/// Finishes what was done, undoes what was not.
async fn end(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let interrupted = Error::new(Code::Internal, "the KMS was stopped before it was done");
    let serving = intent
        .attachment
        .as_deref()
        .is_some_and(|attachment| kms.supervisor.is_serving(attachment));
    log::warn!("{} of {} was not ended: doing that now", intent.call, intent.disk);
    match intent.call.as_str() {
        // How much of the store was made cannot be told.
        "disk.create" => disk_create::undo(kms, intent, &interrupted).await,
        "disk.delete" => disk_delete::finish(kms, intent).await,
        "attach" if serving => attach::commit(kms, intent, None).await,
        "attach" => attach::undo(kms, intent, &interrupted).await,
        "detach" if serving => detach::undo(kms, intent, &interrupted).await,
        "detach" => detach::finish(kms, intent).await,
        other => Err(Error::new(
            Code::Internal,
            format!("{other:?} is not known to this version"),
        )),
    }
}

async fn remaining(kms: &Kms) -> Result<Vec<AttachmentRow>> {
    let mut db = kms.catalogue.read().await?;
    Ok(attachments::all(&mut db).await?)
}

/// What lies in the state directory and the catalogue does not know: shown, never deleted by itself, except for
/// runtime directories, which hold nothing but sockets, tokens and logs.
async fn report_orphans(kms: &Kms) -> Result<()> {
    let attached: Vec<_> = remaining(kms).await?.into_iter().map(|row| row.id).collect();
    let mut db = kms.catalogue.read().await?;
    let names = |path| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect::<Vec<_>>()
    };
    for name in names(kms.state.run()) {
        if !attached.contains(&name) && std::fs::remove_dir_all(kms.state.runtime(&name)).is_err() {
            log::warn!("{} belongs to no attachment", kms.state.runtime(&name).display());
        }
    }
    for name in names(kms.state.disks()) {
        let known = disks::exists(&mut db, &name).await?;
        if !known {
            log::warn!(
                "{} belongs to no disk: it was left, or put there",
                kms.state.disks().join(&name).display()
            );
        }
    }
    Ok(())
}
