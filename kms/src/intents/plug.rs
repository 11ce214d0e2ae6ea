//! A disk is plugged into a running virtual machine as a part of its attach, and taken out as a part of its detach (rule A09).
//!
//! While the machine has the disk, and while it may be getting it, the disk is served: a machine that lacks the other side can hang.

use super::{attach, detach};
use crate::catalogue::attachments;
use crate::catalogue::intents::IntentRow;
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::volumes::{plugging, service_plan};

/// Plugs a disk in that is served, and commits its attach.
///
/// # Errors
/// Why it is not there; then the attach is undone. [`Code::MachineSilent`]: what there is can only be seen when the machine answers,
/// and the intent stays open.
pub(crate) async fn carry_out(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let Err(error) = plugging::plug(kms, intent).await else {
        return attach::commit(kms, intent, None).await;
    };
    if error.code() == Code::MachineSilent {
        return match settle(kms, intent, &error).await? {
            true => Ok(()),
            false => Err(error),
        };
    }
    undo(kms, intent, &error).await?;
    Err(error)
}

/// Ends an attach of which is not known how far it came, by what the machine has. Whether it has the disk.
///
/// # Errors
/// Why that is not known; then the intent stays open.
pub(super) async fn settle(kms: &Kms, intent: &IntentRow, error: &Error) -> Result<bool> {
    let mut there = plugging::is_there(kms, intent).await;
    if matches!(&there, Err(error) if error.code() == Code::MachineSilent) {
        // It may be waiting for the disk's process.
        serve(kms, intent).await?;
        there = plugging::is_there(kms, intent).await;
    }
    if !there? {
        undo(kms, intent, error).await?;
        return Ok(false);
    }
    attach::commit(kms, intent, None).await?;
    kms.supervisor.supervise(&service(kms, intent).await?);
    Ok(true)
}

async fn undo(kms: &Kms, intent: &IntentRow, error: &Error) -> Result<()> {
    let _lock = kms.supervisor.lock(&intent.disk).await;
    attach::undo(kms, intent, error).await
}

/// Takes the disk of a detach out of its machine.
///
/// # Errors
/// Why it stays there; then the detach is undone.
pub(crate) async fn take_out(kms: &Kms, intent: &IntentRow) -> Result<()> {
    if let Err(error) = plugging::unplug(kms, intent).await {
        detach::undo(kms, intent, &error).await?;
        return Err(error);
    }
    let mut tx = kms.catalogue.write().await?;
    attachments::set_plugged(&mut tx, intent.attachment(), false).await?;
    Ok(tx.commit().await?)
}

/// Ends a detach that was to take the disk out of its machine, and that nobody carries out any more: it goes on.
///
/// # Errors
/// As [`detach::end_and_finish`]; if the disk stays in use, none.
pub(super) async fn end_detach(kms: &Kms, intent: &IntentRow) -> Result<()> {
    // The guest writes what it has before it lets go.
    serve(kms, intent).await?;
    match take_out(kms, intent).await {
        Ok(()) => detach::end_and_finish(kms, intent, false).await,
        Err(error) if super::is_open(kms, intent).await? => Err(error),
        Err(error) => {
            log::warn!("{} stays in use: {}", intent.disk, error.full_message());
            Ok(())
        }
    }
}

async fn serve(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let service = service(kms, intent).await?;
    kms.supervisor.supervise(&service);
    kms.supervisor.wait_for_backends(&[service]).await;
    Ok(())
}

async fn service(kms: &Kms, intent: &IntentRow) -> Result<String> {
    Ok(service_plan::of_disk(kms, &intent.disk).await?.service)
}
