//! `POST` and `DELETE /v1/disks/{disk}/snapshot-schedule`. What a schedule asks for is done by [`super::by_schedule`].

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::counts::Counted;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::kinds::Store;
use crate::catalogue::schedules::{self, Due, ScheduleRow};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::rules::quota;
use crate::timekeeper::Times;
use crate::views::schedule::answer;
use crate::{clock, limits};
use sealblk_api::{self, Schedule};

/// Makes a disk's schedule, or changes it.
pub(crate) struct ScheduleSnapshots {
    /// Id or name.
    pub(crate) disk: String,
    /// The call's body.
    pub(crate) options: sealblk_api::ScheduleSnapshots,
}

impl Operation for ScheduleSnapshots {
    const CALL: &'static str = "snapshot.schedule";
    type Decided = Schedule;
    type Answer = Schedule;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Schedule> {
        let disk = find::disk(tx, caller, &self.disk).await?;
        let name = self.options.name.as_deref().unwrap_or("auto");
        // A name that is too long with a time behind it is found now.
        id::check_name(&snapshot_name(name, &clock::now()))?;
        let every = self.check_numbers(&disk)?;
        let times = kms.clock.now();
        let present = schedules::of_disk(tx, &disk.id).await?;
        if present.is_none() {
            quota::check(kms, tx, &caller.account, Counted::Schedules).await?;
        }
        let due = first_due(present.as_ref(), &times, every);
        let id = present.map_or_else(|| id::new(Kind::Schedule), |row| Ok(row.id))?;
        caller.facts.note("schedule", id.as_str());
        let row = ScheduleRow {
            id,
            account: caller.account.clone(),
            name: name.to_owned(),
            every,
            keep: self.options.keep,
            uid: caller.uid,
            created: clock::now(),
            next: Due::at(&times, due),
            last: None,
            error: None,
            snapshots: 0,
            disk: disk.id,
            disk_name: disk.name,
        };
        schedules::set(tx, &row).await?;
        let row = schedules::of_disk(tx, &row.disk).await?.unwrap_or(row);
        Ok(answer(row, &times))
    }

    async fn act(&self, _: &Kms, _: &Caller, schedule: Schedule) -> Result<Schedule> {
        Ok(schedule)
    }
}

impl ScheduleSnapshots {
    /// Milliseconds from one snapshot to the next.
    fn check_numbers(&self, disk: &DiskRow) -> Result<i64> {
        if disk.store != Store::Layered {
            let text = format!(
                "disk {} has a {} store, which has no snapshots: create a disk with --store layered",
                disk.name, disk.store
            );
            return Err(Error::new(Code::NotSupported, text));
        }
        let (every, keep) = (self.options.every_seconds, self.options.keep);
        let (least, most) = (limits::SCHEDULE_EVERY_LEAST, limits::SCHEDULE_EVERY_MOST);
        if !(least..=most).contains(&every) {
            let text =
                format!("snapshots are taken every {least} to {most} seconds: choose another interval");
            return Err(Error::new(Code::InvalidRequest, text));
        }
        if !(1..=limits::SCHEDULE_KEEP).contains(&keep) {
            let text = format!(
                "a schedule keeps 1 to {} snapshots: choose another number",
                limits::SCHEDULE_KEEP
            );
            return Err(Error::new(Code::InvalidRequest, text));
        }
        Ok(i64::try_from(every).unwrap_or(i64::MAX / 1000) * 1000)
    }
}

/// The first snapshot of a schedule is due at once, and that of one that has changed no later than it was.
fn first_due(present: Option<&ScheduleRow>, times: &Times, every: i64) -> i64 {
    present.map_or(times.seen, |row| row.next.seen.min(times.seen + every))
}

/// What a snapshot that a schedule takes now is called: `auto-20261201T063000Z`.
pub(super) fn snapshot_name(prefix: &str, now: &str) -> String {
    let digits = now.chars().take(19).filter(|c| !matches!(c, '-' | ':'));
    format!("{prefix}-{}Z", digits.collect::<String>())
}

/// Removes a disk's schedule; its snapshots stay, and are nobody's to delete but a caller's.
pub(crate) struct UnscheduleSnapshots {
    /// Id or name.
    pub(crate) disk: String,
}

impl Operation for UnscheduleSnapshots {
    const CALL: &'static str = "snapshot.unschedule";
    type Decided = Schedule;
    type Answer = Schedule;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Schedule> {
        let disk = find::disk(tx, caller, &self.disk).await?;
        let Some(row) = schedules::of_disk(tx, &disk.id).await? else {
            let text = format!(
                "disk {} has no schedule of snapshots: `sealctl snapshot schedules` lists them",
                disk.name
            );
            return Err(Error::new(Code::NotFound, text));
        };
        caller.facts.note("schedule", row.id.as_str());
        schedules::delete(tx, &disk.id).await?;
        Ok(answer(row, &kms.clock.now()))
    }

    async fn act(&self, _: &Kms, _: &Caller, schedule: Schedule) -> Result<Schedule> {
        Ok(schedule)
    }
}
