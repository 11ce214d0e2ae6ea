//! `POST /v1/disks/{disk}/detach` (rules A07, A09, D05, D09).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::intents::{IntentRow, Work};
use crate::catalogue::states::DiskState;
use crate::catalogue::{Write, attachments};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::intents::{Subject, detach, plug};
use crate::rules::risks::Risks;
use crate::views;
use crate::volumes::plugging;
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
        let all = attachments::of_disk(tx, &disk.id).await?;
        let Some(first) = all.first() else {
            return Err(not_attached(format!("disk {} is not attached", disk.name)));
        };
        let row = match &self.options.instance {
            Some(wanted) => {
                let instance = find::instance(tx, caller, wanted).await?;
                all.iter()
                    .find(|row| row.instance == instance.id)
                    .ok_or_else(|| {
                        not_attached(format!("disk {} is not attached to {}", disk.name, instance.name))
                    })?
            }
            None if all.len() > 1 => {
                let text = format!(
                    "disk {} is attached to {} instances: say from which it is to be detached",
                    disk.name,
                    all.len()
                );
                return Err(Error::new(Code::InstanceNeeded, text));
            }
            None => first,
        };
        caller.facts.note("attachment", row.id.as_str());
        caller.facts.note("instance", row.instance.as_str());
        let by_force = self.options.force;
        let is_changing = matches!(disk.state, DiskState::RollingBack | DiskState::Resizing);
        if disk.state != DiskState::InUse && !(by_force && is_changing) {
            let text = format!(
                "disk {} is {}: wait until it is in use or available",
                disk.name, disk.state
            );
            return Err(Error::new(Code::DiskNotAvailable, text));
        }
        if !by_force {
            check_key(kms, tx, &disk).await?;
        }
        if self.options.unplug {
            plugging::check_known(&find::instance(tx, caller, &row.instance).await?)?;
        }
        // Of several instances the others go on using it.
        if all.len() == 1 {
            disks::set_state(tx, &disk.id, DiskState::Detaching).await?;
        }
        let work = Work::Detach {
            attachment: row.id.clone(),
        };
        let subject = Subject {
            by_force,
            machine: self.options.unplug,
            ..Subject::disk(&disk)
        };
        kms.open_intent(tx, caller, work, subject).await
    }

    async fn act(&self, kms: &Kms, caller: &Caller, intent: IntentRow) -> Result<Disk> {
        if intent.machine {
            plug::take_out(kms, &intent).await?;
        }
        detach::end_and_finish(kms, &intent, self.options.force).await?;
        let row = {
            let mut db = kms.catalogue.read().await?;
            find::disk(&mut db, caller, &intent.disk).await?
        };
        views::disk::answer(kms, row, None, None).await
    }
}

/// Rule A07: a disk that could not be attached again is detached only on purpose.
async fn check_key(kms: &Kms, tx: &mut Write, disk: &DiskRow) -> Result<()> {
    let (Some(id), Some(state)) = (&disk.key, disk.key_state) else {
        return Ok(());
    };
    let Some(obstacle) = Risks::of(kms, tx, &disk.account).await?.obstacle(id, state) else {
        return Ok(());
    };
    let text = format!(
        "{obstacle}, so disk {} could not be attached again until that is mended: see `sealctl key show {id}` and `sealctl kms \
         status`, or repeat with --force, which also takes the disk from a machine that runs",
        disk.name
    );
    Err(Error::new(Code::DetachNeedsForce, text))
}
