//! What was decided and is not done yet, a file for each kind of work. An intent is opened in the transaction that decides it,
//! and closed in the one that commits or undoes it; what a crash leaves open, [`recovery`] ends at the next start, and in a
//! catalogue that was restored [`restored`].
//!
//! What depends on the kind is asked of [`Work`] alone, whose matches name every kind.

pub(crate) mod attach;
pub(crate) mod charge;
pub(crate) mod check;
pub(crate) mod clone;
pub(crate) mod create_disk;
pub(crate) mod delete_disk;
pub(crate) mod delete_snapshot;
pub(crate) mod detach;
mod ending;
pub(crate) mod group;
pub(crate) mod new_image;
pub(crate) mod new_instance;
pub(crate) mod plug;
pub(crate) mod recovery;
pub(crate) mod restored;
pub(crate) mod store_change;

use sealblk_api::calls;

use crate::audit::{self, Caller, Decision};
use crate::catalogue::disks::DiskRow;
use crate::catalogue::intents::{self, IntentRow, Work};
use crate::catalogue::{Write, attachments};
use crate::clock;
use crate::context::Kms;
use crate::error::{Error, Result};
use crate::id::{self, Kind};
use crate::profile::Profile;
use crate::rules::available::{check_idle, under_way};

impl Work {
    /// Id of the object that the audit log names if the work was not done.
    fn object<'w>(&'w self, volume: &'w str) -> &'w str {
        match self {
            Work::Attach { attachment } => attachment,
            Work::CreateSnapshot { snapshot }
            | Work::GroupSnapshot { snapshot }
            | Work::DeleteSnapshot { snapshot } => snapshot,
            Work::CreateDisk { .. }
            | Work::DeleteDisk
            | Work::Detach { .. }
            | Work::Rollback { .. }
            | Work::Reinitialise
            | Work::Resize { .. }
            | Work::Check => volume,
        }
    }

    /// Rule M01: the kind of KMS call that this is, if it is one.
    fn meter(&self, profile: &Profile) -> Option<&'static str> {
        let meter = calls::meter(self.call());
        match self {
            Work::Reinitialise => meter.filter(|_| profile.meter_reinit),
            Work::CreateDisk { .. }
            | Work::DeleteDisk
            | Work::Attach { .. }
            | Work::Detach { .. }
            | Work::CreateSnapshot { .. }
            | Work::GroupSnapshot { .. }
            | Work::DeleteSnapshot { .. }
            | Work::Rollback { .. }
            | Work::Resize { .. }
            | Work::Check => meter,
        }
    }

    /// Whether the work does not mind that the volume's process is ended, because it is settled without that.
    fn outlives_process(&self) -> bool {
        match self {
            Work::CreateSnapshot { .. }
            | Work::GroupSnapshot { .. }
            | Work::DeleteSnapshot { .. }
            | Work::Rollback { .. }
            | Work::Reinitialise
            | Work::Resize { .. }
            | Work::Check => true,
            Work::CreateDisk { .. } | Work::DeleteDisk | Work::Attach { .. } | Work::Detach { .. } => false,
        }
    }
}

/// Whether nothing is under way on a volume but what its process does, and what is settled without it.
async fn check_endable(tx: &mut Write, volume: &str) -> Result<()> {
    let all = intents::all_on_volume(tx, volume).await?;
    match all.iter().find(|work| !work.outlives_process()) {
        None => Ok(()),
        Some(work) => Err(under_way(work, volume)),
    }
}

async fn is_open(kms: &Kms, intent: &IntentRow) -> Result<bool> {
    let mut db = kms.catalogue.read().await?;
    Ok(intents::is_open(&mut db, &intent.id).await?)
}

impl Kms {
    /// Records why a decided operation was not fulfilled, in the transaction that undoes it.
    pub(crate) async fn record_undone(
        &self,
        tx: &mut Write,
        intent: &IntentRow,
        error: &Error,
    ) -> Result<()> {
        let caller = intent.caller();
        let attachments = attachments::of_disk(tx, &intent.disk).await?;
        let attachment = intent.work.attachment();
        let attachment = attachments.iter().find(|row| Some(row.id.as_str()) == attachment);
        let instance = attachment.map(|attachment| attachment.instance.as_str());
        caller.facts.note_if("instance", instance);
        let object = intent.work.object(&intent.disk);
        audit::append(tx, &caller, intent.work.call(), object, Decision::ended(error)).await
    }

    /// Opens an intent and charges it if it is metered (rules M01 and M02).
    ///
    /// # Errors
    /// [`Code::DiskNotAvailable`] while another operation on the volume is under way; [`Code::BalanceExhausted`].
    pub(crate) async fn open_intent(
        &self,
        tx: &mut Write,
        caller: &Caller,
        work: Work,
        subject: Subject<'_>,
    ) -> Result<IntentRow> {
        match subject.by_force {
            true => check_endable(tx, subject.volume).await?,
            false => check_idle(tx, subject.volume).await?,
        }
        let created = clock::now();
        let month = self.clock.month();
        let metered = work.meter(self.profile).filter(|_| subject.encrypted);
        let charged = match metered {
            Some(_) => charge::take(self, tx, &caller.account, &month).await?,
            None => 0,
        };
        let intent = IntentRow {
            id: id::new(Kind::Intent)?,
            account: caller.account.clone(),
            work,
            disk: subject.volume.to_owned(),
            uid: caller.uid,
            pid: caller.pid,
            request: caller.request.clone(),
            made_key: subject.made_key,
            metered: metered.map(str::to_owned),
            month,
            created,
            charged,
            machine: subject.machine,
        };
        intents::open(tx, &self.meta.region, &intent).await?;
        Ok(intent)
    }
}

/// What an intent is about, besides its work.
#[derive(Debug, Default)]
pub(crate) struct Subject<'a> {
    /// The disk, or the volume whose disk has been deleted.
    pub(crate) volume: &'a str,
    /// Only calls on encrypted disks are metered.
    pub(crate) encrypted: bool,
    /// The service key, if the call has made it.
    pub(crate) made_key: Option<String>,
    /// The volume's process is ended, and with it whatever that has been asked to do.
    pub(crate) by_force: bool,
    /// A running virtual machine is given the disk, or asked to let it go.
    pub(crate) machine: bool,
}

impl<'a> Subject<'a> {
    /// A disk and nothing else.
    pub(crate) fn disk(disk: &'a DiskRow) -> Self {
        Subject {
            volume: &disk.id,
            encrypted: disk.encrypted,
            ..Subject::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind. The compiler asks for a kind that is missing.
    fn kinds() -> impl Iterator<Item = Work> {
        let id = String::new;
        let first = Work::CreateDisk { snapshot: None };
        std::iter::successors(Some(first), move |kind| {
            Some(match kind {
                Work::CreateDisk { .. } => Work::DeleteDisk,
                Work::DeleteDisk => Work::Attach { attachment: id() },
                Work::Attach { .. } => Work::Detach { attachment: id() },
                Work::Detach { .. } => Work::CreateSnapshot { snapshot: id() },
                Work::CreateSnapshot { .. } => Work::GroupSnapshot { snapshot: id() },
                Work::GroupSnapshot { .. } => Work::DeleteSnapshot { snapshot: id() },
                Work::DeleteSnapshot { .. } => Work::Rollback { snapshot: id() },
                Work::Rollback { .. } => Work::Reinitialise,
                Work::Reinitialise => Work::Resize { size: 0 },
                Work::Resize { .. } => Work::Check,
                Work::Check => return None,
            })
        })
    }

    /// Otherwise it would be metered as nothing, and the audit log would name what nobody can call.
    #[test]
    fn each_kind_of_work_has_the_name_of_a_call() {
        for work in kinds() {
            let name = Some(work.call());
            let is_listed = calls::ALL.iter().any(|call| call.spec.audit == name);
            assert!(is_listed, "{work:?}");
        }
    }
}
