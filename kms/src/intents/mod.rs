//! What was decided and is not done yet. An intent is opened in the transaction that decides it, and closed in the one that
//! commits or undoes it; what a crash leaves open, [`recovery`] ends at the next start.

pub(crate) mod charge;
pub(crate) mod recovery;

use sealblk_api::calls;

use crate::audit::{self, Caller, Decision};
use crate::catalogue::Write;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::intents::{self, IntentRow};
use crate::clock;
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::rules::available::{check_endable, check_idle};
use crate::rules::profile::Profile;

impl Kms {
    /// Records why a decided operation was not fulfilled, in the transaction that undoes it.
    pub(crate) async fn record_undone(
        &self,
        tx: &mut Write,
        intent: &IntentRow,
        error: &Error,
    ) -> Result<()> {
        let caller = Caller {
            account: intent.account.clone(),
            uid: intent.uid,
            pid: intent.pid,
            request: intent.request.clone(),
        };
        let object = match intent.call.as_str() {
            "attach" => intent.attachment.as_ref(),
            "snapshot.create" | "snapshot.delete" => intent.snapshot.as_ref(),
            _ => None,
        };
        let object = object.unwrap_or(&intent.disk);
        let decision = match error.code() {
            // The backend's part of the decision: nothing was done.
            Code::FrontendConnected => Decision::Refused(error),
            _ => Decision::Failed(error),
        };
        audit::append(tx, &caller, &intent.call, object, decision).await
    }

    /// Opens an intent and charges it if it is metered (rules M01 and M02).
    ///
    /// # Errors
    /// [`Code::DiskNotAvailable`] while another operation on the volume is under way; [`Code::BalanceExhausted`].
    pub(crate) async fn open_intent(
        &self,
        tx: &mut Write,
        caller: &Caller,
        call: &str,
        subject: Subject<'_>,
    ) -> Result<IntentRow> {
        match subject.by_force {
            true => check_endable(tx, subject.volume).await?,
            false => check_idle(tx, subject.volume).await?,
        }
        let created = clock::now();
        let month = self.clock.month();
        let metered = metered(self.profile, call).filter(|_| subject.encrypted);
        let charged = match metered {
            Some(_) => crate::intents::charge::take(self, tx, &caller.account, &month).await?,
            None => 0,
        };
        let intent = IntentRow {
            id: id::new(Kind::Intent)?,
            account: caller.account.clone(),
            call: call.to_owned(),
            disk: subject.volume.to_owned(),
            attachment: subject.attachment.map(str::to_owned),
            snapshot: subject.snapshot.map(str::to_owned),
            size: subject.size,
            uid: caller.uid,
            pid: caller.pid,
            request: caller.request.clone(),
            made_key: subject.made_key,
            metered: metered.map(str::to_owned),
            month,
            created,
            charged,
        };
        intents::open(tx, &self.meta.region, &intent).await?;
        Ok(intent)
    }
}

/// What an intent is about.
#[derive(Debug, Default)]
pub(crate) struct Subject<'a> {
    /// The disk, or the volume whose disk has been deleted.
    pub(crate) volume: &'a str,
    /// Only calls on encrypted disks are metered.
    pub(crate) encrypted: bool,
    pub(crate) attachment: Option<&'a str>,
    pub(crate) snapshot: Option<&'a str>,
    /// The size asked for, in bytes.
    pub(crate) size: Option<i64>,
    /// The service key, if the call has made it.
    pub(crate) made_key: Option<String>,
    /// The volume's process is ended, and with it whatever that has been asked to do.
    pub(crate) by_force: bool,
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

/// Rule M01: the kind of KMS call that this is, if it is one.
fn metered(profile: &Profile, call: &str) -> Option<&'static str> {
    calls::meter(call).filter(|meter| *meter != "reinit" || profile.meter_reinit)
}
