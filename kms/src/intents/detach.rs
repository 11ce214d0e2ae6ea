//! A disk goes from an instance.

use std::time::Instant;

use super::{charge, is_open};
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::states::DiskState;
use crate::catalogue::{attachments, disks};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::backends::Plan;
use crate::limits;
use crate::volumes::service_plan;

/// Ends a detach that nobody carries out any more: it goes on, unless the disk is served after all.
///
/// # Errors
/// As [`end_and_finish`].
pub(super) async fn end(
    kms: &Kms,
    intent: &IntentRow,
    attachment: &str,
    (at_start, hangs): (bool, bool),
    interrupted: &Error,
) -> Result<()> {
    if hangs {
        if at_start {
            kms.supervisor.expect_end(attachment);
            let text = "the disk's process was killed, and waits for its storage: the detach is finished when it has ended";
            return Err(Error::new(Code::StorageHangs, text));
        }
        return end_and_finish(kms, intent, true).await;
    }
    if kms.supervisor.is_serving(attachment) {
        return undo(kms, intent, interrupted).await;
    }
    match end_and_finish(kms, intent, false).await {
        Err(error) if !is_open(kms, intent).await? => {
            log::warn!("{} stays in use: {}", intent.disk, error.full_message());
            Ok(())
        }
        outcome => outcome,
    }
}

/// Whether the disk's process has been killed, and the kernel may not have let go of it yet.
///
/// # Errors
/// The catalogue's.
pub(super) async fn hangs(kms: &Kms, intent: &IntentRow) -> Result<bool> {
    let mut db = kms.catalogue.read().await?;
    Ok(disks::state(&mut db, &intent.disk).await? == Some(DiskState::Error))
}

/// Detaches if nobody holds the disk afterwards; otherwise it stays in use. Can be repeated. What the process was doing when it
/// was ended by force is settled by whoever has asked for that, of the store.
///
/// # Errors
/// Why it stays in use, or the catalogue's; then the intent stays open. [`Code::StorageHangs`]: its process has been killed,
/// the kernel does not let go of it, and the intent stays open too.
pub(crate) async fn end_and_finish(kms: &Kms, intent: &IntentRow, force: bool) -> Result<()> {
    let _lock = match intent.work.attachment() {
        Some(attachment) if force => kms.supervisor.lock_by_force(&intent.disk, attachment).await,
        _ => kms.supervisor.lock(&intent.disk).await,
    };
    let plan = service_plan::of_disk(kms, &intent.disk).await?;
    let deadline = Instant::now() + limits::BACKEND_TIME;
    let ended = loop {
        let ended = end_serving(kms, intent, &plan, force).await;
        let connected = matches!(&ended, Err(error) if error.code() == Code::FrontendConnected);
        // A machine that has let go of the disk may have been quicker than its process.
        if !(connected && intent.machine && Instant::now() < deadline) {
            break ended;
        }
        tokio::time::sleep(limits::MACHINE_LOOK_TIME).await;
    };
    if let Err(error) = ended {
        if error.code() == Code::StorageHangs {
            // The process serves nobody any more. The intent stays open, and the detach is finished when the kernel lets go of
            // it.
            let mut tx = kms.catalogue.write().await?;
            disks::set_state(&mut tx, &intent.disk, DiskState::Error).await?;
            tx.commit().await?;
            return Err(error);
        }
        undo(kms, intent, &error).await?;
        return Err(error);
    }
    let finished = finish(kms, intent).await;
    if finished.is_err() {
        // If the attachment is still there, it is served until this is tried again.
        kms.supervisor.go_on(&plan.service);
    }
    finished
}

async fn end_serving(kms: &Kms, intent: &IntentRow, plan: &Plan, force: bool) -> Result<()> {
    if plan.sessions.len() == 1 {
        return kms.supervisor.end(plan, force).await;
    }
    let session = service_plan::session(plan, intent.attachment())?;
    kms.supervisor.end_session(plan, &session.attachment, force).await
}

/// Removes what belonged to the attachment, which is served no more. Can be repeated.
///
/// # Errors
/// The catalogue's; then the intent stays open, and the next start finishes it.
async fn finish(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let plan = service_plan::of_disk(kms, &intent.disk).await?;
    let session = service_plan::session(&plan, intent.attachment())?;
    if plan.sessions.len() > 1 {
        kms.supervisor.remove_session(&plan, session).await;
    } else {
        kms.supervisor.remove(&plan).await;
    }
    let mut tx = kms.catalogue.write().await?;
    intents::close(&mut tx, intent).await?;
    attachments::delete(&mut tx, &session.attachment).await?;
    disks::set_idle(&mut tx, &intent.disk).await?;
    Ok(tx.commit().await?)
}

/// The backend goes on serving; the charge is refunded.
///
/// # Errors
/// The catalogue's.
pub(super) async fn undo(kms: &Kms, intent: &IntentRow, error: &Error) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    kms.record_undone(&mut tx, intent, error).await?;
    charge::give_back(kms.profile, &mut tx, &kms.meta.region, intent).await?;
    disks::set_state(&mut tx, &intent.disk, DiskState::InUse).await?;
    tx.commit().await?;
    if let Some(attachment) = intent.work.attachment() {
        kms.supervisor.go_on(attachment);
    }
    Ok(())
}
