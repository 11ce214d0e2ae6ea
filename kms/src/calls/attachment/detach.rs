//! `POST /v1/disks/{disk}/detach`.

use super::attach;
use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::key_state::KeyState;
use crate::catalogue::{Write, attachments};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::intents::Subject;
use crate::views;
use sealblk_api::{self, Disk};

/// Detaches a disk.
pub(crate) struct Detach {
    /// Id or name.
    pub(crate) disk: String,
    /// The call's body.
    pub(crate) options: sealblk_api::Detach,
}

impl Operation for Detach {
    const CALL: &'static str = "detach";
    const FREES: bool = true;
    type Decided = IntentRow;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<IntentRow> {
        let disk = find::disk(tx, caller, &self.disk).await?;
        let not_attached = |text: String| Error::new(Code::NotAttached, text);
        let Some(attachment) = &disk.attachment else {
            return Err(not_attached(format!("disk {} is not attached", disk.name)));
        };
        let all = attachments::of_disk(tx, &disk.id).await?;
        let attachment = match &self.options.instance {
            Some(wanted) => {
                let instance = find::instance(tx, caller, wanted).await?;
                let found = all.iter().find(|row| row.instance == instance.id);
                &found
                    .ok_or_else(|| {
                        not_attached(format!("disk {} is not attached to {}", disk.name, instance.name))
                    })?
                    .id
            }
            None if all.len() > 1 => {
                let text = format!(
                    "disk {} is attached to {} instances: say from which it is to be detached",
                    disk.name,
                    all.len()
                );
                return Err(Error::new(Code::InstanceNeeded, text));
            }
            None => attachment,
        };
        let by_force = self.options.force;
        let is_changing = matches!(disk.state.as_str(), "rolling-back" | "resizing");
        if disk.state != "in-use" && !(by_force && is_changing) {
            let text = format!(
                "disk {} is {}: wait until it is in use or available",
                disk.name, disk.state
            );
            return Err(Error::new(Code::DiskNotAvailable, text));
        }
        check_key(&disk, self.options.force)?;
        // Of several instances the others go on using it.
        if all.len() == 1 {
            disks::set_state(tx, &disk.id, "detaching").await?;
        }
        let subject = Subject {
            attachment: Some(attachment),
            by_force,
            ..Subject::disk(&disk)
        };
        kms.open_intent(tx, caller, Self::CALL, subject).await
    }

    async fn act(&self, kms: &Kms, caller: &Caller, intent: IntentRow) -> Result<Disk> {
        end_and_finish(kms, &intent, self.options.force).await?;
        let row = {
            let mut db = kms.catalogue.read().await?;
            find::disk(&mut db, caller, &intent.disk).await?
        };
        views::disk::answer(kms, row, None, None).await
    }
}

/// Rule A07: a disk that could not be attached again is detached only on purpose.
fn check_key(disk: &DiskRow, force: bool) -> Result<()> {
    let (Some(id), Some(state)) = (&disk.key, disk.key_state) else {
        return Ok(());
    };
    if force || state == KeyState::Enabled {
        return Ok(());
    }
    let text = format!(
        "key {id} of disk {} is {}, so the disk could not be attached again until the key is usable: see `sealctl key \
         show {id}`, or repeat with --force, which also takes the disk from a machine that runs",
        disk.name,
        state.name()
    );
    Err(Error::new(Code::DetachNeedsForce, text))
}

/// Detaches if nobody holds the disk afterwards; otherwise it stays in use. Can be repeated. What the process was doing when it
/// was ended by force is settled by whoever has asked for that, of the store.
///
/// # Errors
/// Why it stays in use, or the catalogue's; then the intent stays open. [`Code::StorageHangs`]: its process has been killed,
/// the kernel does not let go of it, and the intent stays open too.
pub(crate) async fn end_and_finish(kms: &Kms, intent: &IntentRow, force: bool) -> Result<()> {
    let _turn = match &intent.attachment {
        Some(attachment) if force => kms.supervisor.turn_by_force(&intent.disk, attachment).await,
        _ => kms.supervisor.turn(&intent.disk).await,
    };
    let plan = attach::plan_of(kms, intent).await?;
    let ended = if plan.sessions.len() > 1 {
        let session = attach::session_of(&plan, intent)?;
        kms.supervisor
            .end_session(&plan, &session.attachment, force)
            .await
    } else {
        kms.supervisor.end(&plan, force).await
    };
    if let Err(error) = ended {
        if error.code() == Code::StorageHangs {
            // It serves nobody any more. The intent stays open, and the detach is finished when the kernel lets go of it.
            let mut tx = kms.catalogue.write().await?;
            disks::set_state(&mut tx, &intent.disk, "error").await?;
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

/// Removes what belonged to the attachment, which is served no more. Can be repeated.
///
/// # Errors
/// The catalogue's; then the intent stays open, and the next start finishes it.
async fn finish(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let plan = attach::plan_of(kms, intent).await?;
    let session = attach::session_of(&plan, intent)?;
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
pub(crate) async fn undo(kms: &Kms, intent: &IntentRow, error: &Error) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    kms.record_undone(&mut tx, intent, error).await?;
    intents::refund(&mut tx, &kms.meta.region, intent).await?;
    disks::set_state(&mut tx, &intent.disk, "in-use").await?;
    tx.commit().await?;
    if let Some(attachment) = &intent.attachment {
        kms.supervisor.go_on(attachment);
    }
    Ok(())
}
