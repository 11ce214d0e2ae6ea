//! A disk comes to an instance.

use super::charge;
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::states::DiskState;
use crate::catalogue::{attachments, disks, services};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::backends::Plan;
use crate::volumes::service_plan;

/// Serves the disk, and commits, unless it is still to be plugged in ([`super::plug`]).
///
/// # Errors
/// Why it is not served; then it has been undone.
pub(crate) async fn carry_out(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let _lock = kms.supervisor.lock(&intent.disk).await;
    let plan = service_plan::of_disk(kms, &intent.disk).await?;
    let first = plan.sessions.len() == 1;
    let served = async {
        let token_hash = serve(kms, intent, plan).await?;
        match intent.machine {
            true => Ok(()),
            false => commit(kms, intent, token_hash).await,
        }
    };
    if let Err(error) = served.await {
        undo(kms, intent, &error).await?;
        return Err(error);
    }
    if first {
        kms.supervisor.supervise(intent.attachment());
    }
    Ok(())
}

async fn serve(kms: &Kms, intent: &IntentRow, plan: Plan) -> Result<Option<[u8; 32]>> {
    let session = service_plan::session(&plan, intent.attachment())?.clone();
    if plan.sessions.len() > 1 {
        kms.supervisor.add_session(&plan.service, session).await?;
        return Ok(None);
    }
    let (service, start) = (plan.service.clone(), plan.start);
    let token_hash = kms.supervisor.prepare(plan, &kms.state.token(&service))?;
    if start {
        kms.supervisor.start(&service).await?;
    }
    Ok(token_hash)
}

/// Commits an attach: the disk is in use from now on.
pub(crate) async fn commit(kms: &Kms, intent: &IntentRow, token_hash: Option<[u8; 32]>) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    if let (Some(hash), Some(attachment)) = (token_hash, intent.work.attachment()) {
        services::set_token(&mut tx, attachment, &hash).await?;
    }
    if intent.machine {
        attachments::set_plugged(&mut tx, intent.attachment(), true).await?;
    }
    disks::set_state(&mut tx, &intent.disk, DiskState::InUse).await?;
    intents::close(&mut tx, intent).await?;
    Ok(tx.commit().await?)
}

/// Ends what was started, and refunds. Can be repeated.
///
/// # Errors
/// The backend's if it does not end, or the catalogue's; then the intent stays open.
pub(crate) async fn undo(kms: &Kms, intent: &IntentRow, error: &Error) -> Result<()> {
    let plan = service_plan::of_disk(kms, &intent.disk).await?;
    let session = service_plan::session(&plan, intent.attachment())?;
    let further = plan.sessions.len() > 1;
    let ended = if further {
        // A process that is just not connected serves others: it is waited for, and not killed.
        let force = kms.supervisor.is_serving(&plan.service);
        kms.supervisor
            .end_session(&plan, &session.attachment, force)
            .await
    } else {
        kms.supervisor.end(&plan, true).await
    };
    match ended {
        // No process of ours has the store: this is why the attach has failed, and no reason to keep it.
        Err(error) if error.code() == Code::StoreInUse => log::warn!("{}: {error}", plan.service),
        ended => ended?,
    }
    if further {
        kms.supervisor.remove_session(&plan, session).await;
    } else {
        kms.supervisor.remove(&plan).await;
    }
    let mut tx = kms.catalogue.write().await?;
    kms.record_undone(&mut tx, intent, error).await?;
    charge::give_back(kms.profile, &mut tx, &kms.meta.region, intent).await?;
    attachments::delete(&mut tx, &session.attachment).await?;
    disks::set_idle(&mut tx, &intent.disk).await?;
    Ok(tx.commit().await?)
}
