//! Snapshots that schedules ask for: taken, and the oldest deleted, as calls of whoever has made the schedule.
//!
//! The next one is due by the time that was seen to pass, so that a wall clock that jumps takes none, and none is missed where it is
//! set back. At a start, what the wall clock says was missed is made up once.

use std::sync::{Arc, Weak};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::delete::DeleteSnapshot;
use super::schedule::snapshot_name;
use crate::audit::Caller;
use crate::calls::{Operation, run};
use crate::catalogue::intents::IntentRow;
use crate::catalogue::schedules::{self, Due, ScheduleRow};
use crate::catalogue::{Write, snapshots};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::timekeeper::millis;
use crate::{clock, limits};
use sealblk_api::{CreateSnapshot, Snapshot};

/// Takes them, as long as the KMS lives.
pub(crate) async fn carry_out(kms: Weak<Kms>) {
    let mut is_start = true;
    loop {
        let Some(living) = kms.upgrade() else { return };
        let looked = async {
            if is_start {
                make_up(&living).await?;
                is_start = false;
            }
            once(&living).await
        };
        match looked.await {
            Err(error) if error.code() == Code::ShuttingDown => return,
            Err(error) => log::error!("no snapshot is taken by schedule: {}", error.full_message()),
            Ok(()) => {}
        }
        drop(living);
        tokio::time::sleep(limits::SCHEDULE_LOOK_TIME).await;
    }
}

/// What was missed is due: no daemon was there to see that time pass.
///
/// # Errors
/// The catalogue's.
async fn make_up(kms: &Kms) -> Result<()> {
    let times = kms.clock.now();
    let mut tx = kms.catalogue.write().await?;
    schedules::make_up(&mut tx, &Due::at(&times, times.seen)).await?;
    Ok(tx.commit().await?)
}

/// One round: a few disks at once, as the storage of some may hang.
///
/// # Errors
/// [`Code::ShuttingDown`]; the catalogue's.
async fn once(kms: &Arc<Kms>) -> Result<()> {
    let due = {
        let _running = kms.begin().await?;
        let mut db = kms.catalogue.read().await?;
        schedules::due(&mut db, kms.clock.now().seen, limits::SCHEDULE_BATCH).await?
    };
    let places = Arc::new(Semaphore::new(limits::SCHEDULES_AT_ONCE));
    let mut tasks = JoinSet::new();
    for row in due {
        let (kms, places) = (Arc::clone(kms), Arc::clone(&places));
        tasks.spawn(async move {
            let _place = places.acquire_owned().await;
            look_after(&kms, row).await
        });
    }
    let ended = tasks.join_all().await;
    ended.into_iter().collect()
}

/// Takes the snapshot that is due and deletes those that are too many; notes what came of it.
async fn look_after(kms: &Arc<Kms>, mut row: ScheduleRow) -> Result<()> {
    let meant = row.next.seen;
    if !postpone(kms, &mut row).await? {
        return Ok(());
    }
    // Where an earlier round could not, there may be no room for another.
    let done = match delete_superfluous(kms, &row).await {
        Ok(()) => match take(kms, &mut row).await {
            Ok(()) => delete_superfluous(kms, &row).await,
            failed => failed,
        },
        failed => failed,
    };
    let times = kms.clock.now();
    let next = match &done {
        Err(error) if error.code() == Code::ShuttingDown => return done,
        Err(_) => retry_at(kms, &row),
        // At the times that were meant, also where it was late.
        Ok(()) if meant + row.every > times.seen => Due::at(&times, meant + row.every),
        Ok(()) => Due::at(&times, times.seen + row.every),
    };
    row.error = done.err().map(|error| error.full_message());
    let mut tx = kms.catalogue.write().await?;
    schedules::note(&mut tx, &row, &next).await?;
    Ok(tx.commit().await?)
}

/// From now on it is due as after a failure: so a daemon that keeps being killed takes no snapshot at each start. False if the
/// schedule has been changed since it was listed.
async fn postpone(kms: &Kms, row: &mut ScheduleRow) -> Result<bool> {
    let retry = retry_at(kms, row);
    let mut tx = kms.catalogue.write().await?;
    let is_as_it_was = schedules::note(&mut tx, row, &retry).await?;
    tx.commit().await?;
    row.next = retry;
    Ok(is_as_it_was)
}

/// When a snapshot that is not taken now is due again.
fn retry_at(kms: &Kms, row: &ScheduleRow) -> Due {
    let times = kms.clock.now();
    let pause = millis(limits::SCHEDULE_RETRY_TIME).min(row.every);
    Due::at(&times, times.seen + pause)
}

async fn take(kms: &Arc<Kms>, row: &mut ScheduleRow) -> Result<()> {
    let now = clock::at(kms.clock.now().wall());
    let planned = Planned {
        create: CreateSnapshot {
            disk: row.disk.clone(),
            name: snapshot_name(&row.name, &now),
        },
        schedule: row.clone(),
    };
    run(kms, caller_of(kms, row)?, planned).await?;
    row.last = Some(now);
    Ok(())
}

/// Only those of the schedule itself.
async fn delete_superfluous(kms: &Arc<Kms>, row: &ScheduleRow) -> Result<()> {
    let superfluous = {
        let mut db = kms.catalogue.read().await?;
        schedules::superfluous(&mut db, &row.id, row.keep).await?
    };
    for snapshot in superfluous {
        let caller = caller_of(kms, row)?;
        run(kms, caller, DeleteSnapshot { snapshot }).await?;
    }
    Ok(())
}

/// Who has made the schedule; the process is this one.
fn caller_of(kms: &Kms, row: &ScheduleRow) -> Result<Caller> {
    let caller = Caller {
        uid: row.uid,
        ..kms.own_caller(&row.account)?
    };
    caller.facts.note("schedule", row.id.as_str());
    Ok(caller)
}

/// A snapshot that a schedule asks for.
struct Planned {
    create: CreateSnapshot,
    schedule: ScheduleRow,
}

impl Operation for Planned {
    const CALL: &'static str = CreateSnapshot::CALL;
    type Decided = IntentRow;
    type Answer = Snapshot;

    fn object(&self) -> &str {
        self.create.object()
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<IntentRow> {
        let present = schedules::of_disk(tx, &self.schedule.disk).await?;
        if present.is_none_or(|row| row.id != self.schedule.id) {
            return Err(Error::new(Code::NotFound, "the schedule was removed"));
        }
        let intent = self.create.decide(kms, caller, tx).await?;
        snapshots::set_schedule(tx, intent.work.snapshot().unwrap_or_default(), &self.schedule.id).await?;
        Ok(intent)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, intent: IntentRow) -> Result<Snapshot> {
        self.create.act(kms, caller, intent).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::schedule::{ScheduleSnapshots, UnscheduleSnapshots};
    use super::*;
    use crate::audit;
    use crate::calls::disk::delete::DeleteDisk;
    use crate::calls::disk::restore::RestoreDisk;
    use crate::calls::tests::{World, caller, new_disk};
    use crate::catalogue::{Page, behind};
    use crate::context::quotas::{Quota, Quotas};
    use crate::jobs::key_work;
    use crate::timekeeper::DAY;
    use crate::timekeeper::fake::Fake;
    use crate::views;
    use sealblk_api::{CreateDisk, Schedule};

    const HOUR: Duration = Duration::from_secs(3600);

    fn every(hours: u64, keep: u32) -> ScheduleSnapshots {
        ScheduleSnapshots {
            disk: "data".into(),
            options: sealblk_api::ScheduleSnapshots {
                every_seconds: hours * 3600,
                keep,
                name: None,
            },
        }
    }

    fn maker() -> Caller {
        Caller {
            uid: 4242,
            ..caller()
        }
    }

    /// With a layered disk, and clocks that the test sets.
    async fn with_disk() -> (World, Fake) {
        let (mut world, clocks) = (World::new().await, Fake::new());
        world.keep_time_by(&clocks).await;
        key_work::once(&world.kms).await.unwrap();
        let disk = CreateDisk {
            store: None,
            ..new_disk(None)
        };
        run(&world.kms, caller(), disk).await.unwrap();
        (world, clocks)
    }

    /// The same, with a schedule whose first snapshot was taken.
    async fn with_schedule(hours: u64, keep: u32) -> (World, Fake) {
        let (world, clocks) = with_disk().await;
        run(&world.kms, maker(), every(hours, keep)).await.unwrap();
        once(&world.kms).await.unwrap();
        (world, clocks)
    }

    /// Time passes under the daemon's eyes.
    async fn pass(world: &World, clocks: &Fake, hours: u32) {
        for _ in 0..hours {
            clocks.pass(HOUR);
            key_work::once(&world.kms).await.unwrap();
            once(&world.kms).await.unwrap();
        }
    }

    async fn names(world: &World) -> Vec<String> {
        let mut db = world.kms.catalogue.read().await.unwrap();
        let names = "SELECT name FROM snapshots WHERE state = 'available' ORDER BY rowid";
        let rows: Vec<(String,)> = behind::rows(&mut db, names).await;
        rows.into_iter().map(|(name,)| name).collect()
    }

    async fn schedule(world: &World) -> Option<Schedule> {
        let page = Page {
            after: String::new(),
            limit: 10,
        };
        let listed = views::schedule::list(&world.kms, &caller(), &page).await;
        listed.unwrap().schedules.pop()
    }

    async fn is_warned(world: &World) -> bool {
        let status = views::kms::kms_status(&world.kms, &caller()).await.unwrap();
        let mut codes = status.conditions.iter().map(|condition| condition.code.as_str());
        codes.any(|code| code == "ScheduleFailed")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_oldest_of_a_schedule_goes_and_no_other() {
        let (world, clocks) = with_schedule(6, 2).await;
        let by_hand = CreateSnapshot {
            disk: "data".into(),
            name: "by-hand".into(),
        };
        run(&world.kms, caller(), by_hand).await.unwrap();
        pass(&world, &clocks, 24).await;
        assert_eq!(
            names(&world).await,
            ["by-hand", "auto-20261120T180000Z", "auto-20261121T000000Z"]
        );
        assert_eq!(world.calls("snapshot").await, 6, "each counts");
        let told = schedule(&world).await.unwrap();
        assert_eq!((told.snapshots, told.uid, told.last_error), (2, 4242, None));
        assert_eq!(told.last_snapshot.unwrap(), "2026-11-21T00:00:00.000Z");
        assert_eq!(told.next_snapshot, "2026-11-21T06:00:00.000Z");
        let mut db = world.kms.catalogue.read().await.unwrap();
        let records = audit::list(&mut db, "default", audit::Wanted::after(0, 1000))
            .await
            .unwrap();
        let of_schedule: Vec<_> = records
            .into_iter()
            .filter(|record| record.call != "snapshot.schedule")
            .filter(|record| {
                record
                    .details
                    .as_ref()
                    .is_some_and(|details| details.get("schedule").is_some_and(|id| *id == *told.id))
            })
            .collect();
        assert_eq!(of_schedule.len(), 5 + 3);
        assert!(
            of_schedule
                .iter()
                .all(|record| record.uid == 4242 && record.decision == "allowed")
        );
        drop(db);
        let unschedule = || UnscheduleSnapshots { disk: "data".into() };
        run(&world.kms, caller(), unschedule()).await.unwrap();
        pass(&world, &clocks, 24).await;
        assert_eq!(names(&world).await.len(), 3, "what there is stays");
        let refused = run(&world.kms, caller(), unschedule()).await.err().unwrap();
        assert_eq!(refused.code(), Code::NotFound);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_missed_while_no_daemon_was_there_is_made_up_once() {
        let (mut world, clocks) = with_schedule(1, 100).await;
        clocks.reboot(12 * 3600 * 1000);
        world.keep_time_by(&clocks).await;
        key_work::once(&world.kms).await.unwrap();
        once(&world.kms).await.unwrap();
        assert_eq!(names(&world).await.len(), 1, "nobody saw that time pass");
        for _ in 0..2 {
            make_up(&world.kms).await.unwrap();
            once(&world.kms).await.unwrap();
            assert_eq!(names(&world).await.len(), 2);
        }
        pass(&world, &clocks, 2).await;
        assert_eq!(names(&world).await.len(), 4);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_wall_clock_that_jumps_takes_no_snapshot_and_keeps_none_back() {
        let (world, clocks) = with_schedule(1, 100).await;
        for by in [400 * DAY, -800 * DAY, 400 * DAY] {
            clocks.jump(by);
            once(&world.kms).await.unwrap();
            let before = names(&world).await.len();
            pass(&world, &clocks, 2).await;
            assert_eq!(names(&world).await.len(), before + 2);
        }
        assert_eq!(names(&world).await.len(), 7);
    }

    /// They were of days that come yet, and each new one seemed to be older.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_taken_by_a_clock_ahead_is_older_than_what_is_taken_now() {
        let (world, clocks) = with_schedule(6, 2).await;
        pass(&world, &clocks, 6).await;
        let mut tx = world.kms.catalogue.write().await.unwrap();
        let ahead = "UPDATE snapshots SET created = '2099-01-01T00:00:00.000Z'";
        behind::run(&mut tx, ahead).await.unwrap();
        tx.commit().await.unwrap();
        pass(&world, &clocks, 18).await;
        assert_eq!(
            names(&world).await,
            ["auto-20261120T180000Z", "auto-20261121T000000Z"]
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_snapshot_that_fails_is_shown_and_tried_again() {
        let (world, clocks) = with_schedule(6, 2).await;
        let store = world.disk().await.unwrap().id;
        let store = world.kms.state.store(&store, None);
        let contents = std::fs::read(&store).unwrap();
        std::fs::write(&store, "no store").unwrap();
        pass(&world, &clocks, 6).await;
        let told = schedule(&world).await.unwrap();
        assert!(told.last_error.is_some());
        assert_eq!(told.next_snapshot, "2026-11-20T06:05:00.000Z");
        assert!(is_warned(&world).await);
        once(&world.kms).await.unwrap();
        std::fs::write(&store, contents).unwrap();
        assert_eq!(names(&world).await.len(), 1);
        clocks.pass(Duration::from_secs(300));
        once(&world.kms).await.unwrap();
        assert_eq!(names(&world).await.len(), 2);
        assert_eq!(schedule(&world).await.unwrap().last_error, None);
        assert!(!is_warned(&world).await);
    }

    /// Otherwise one that is killed by each attempt would delete all older snapshots in the end.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_daemon_that_is_killed_takes_no_snapshot_at_once_when_it_is_back() {
        let (mut world, clocks) = with_disk().await;
        run(&world.kms, maker(), every(6, 2)).await.unwrap();
        let mut row = {
            let mut db = world.kms.catalogue.read().await.unwrap();
            schedules::due(&mut db, i64::MAX, 10)
                .await
                .unwrap()
                .pop()
                .unwrap()
        };
        assert!(postpone(&world.kms, &mut row).await.unwrap());
        let planned = Planned {
            create: CreateSnapshot {
                disk: row.disk.clone(),
                name: "killed".into(),
            },
            schedule: row.clone(),
        };
        let decided = world
            .kms
            .decide(&caller_of(&world.kms, &row).unwrap(), &planned)
            .await;
        decided.unwrap();
        world.crash_and_recover().await;
        key_work::once(&world.kms).await.unwrap();
        let mut db = world.kms.catalogue.read().await.unwrap();
        let due = schedules::due(&mut db, row.next.seen - 1, 10).await.unwrap();
        assert!(due.is_empty());
        let due = schedules::due(&mut db, row.next.seen, 10).await.unwrap();
        assert_eq!(due.len(), 1);
        drop(clocks);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_a_deleted_disk_none_is_taken_until_it_is_restored() {
        let (world, clocks) = with_schedule(1, 100).await;
        run(&world.kms, caller(), DeleteDisk::new("data".into(), Some(7)))
            .await
            .unwrap();
        pass(&world, &clocks, 2).await;
        assert!(schedule(&world).await.is_none());
        let restore = RestoreDisk {
            disk: "data".into(),
            options: sealblk_api::RestoreDisk::default(),
        };
        run(&world.kms, caller(), restore).await.unwrap();
        once(&world.kms).await.unwrap();
        assert_eq!(names(&world).await.len(), 2);
        run(&world.kms, caller(), DeleteDisk::new("data".into(), Some(0)))
            .await
            .unwrap();
        let mut db = world.kms.catalogue.read().await.unwrap();
        let left: i64 = behind::value(&mut db, "SELECT count(*) FROM snapshot_schedules").await;
        assert_eq!(left, 0, "its snapshots are there, and are nobody's");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_schedule_is_within_limits() {
        let (mut world, _) = with_disk().await;
        let raw = CreateDisk {
            name: "raw".into(),
            ..new_disk(None)
        };
        run(&world.kms, caller(), raw).await.unwrap();
        let refused = async |change: &dyn Fn(&mut ScheduleSnapshots)| {
            let mut asked = every(1, 1);
            change(&mut asked);
            run(&world.kms, caller(), asked).await.err().unwrap().code()
        };
        assert_eq!(
            refused(&|asked| asked.options.every_seconds = 59).await,
            Code::InvalidRequest
        );
        assert_eq!(
            refused(&|asked| asked.options.every_seconds = u64::MAX).await,
            Code::InvalidRequest
        );
        assert_eq!(
            refused(&|asked| asked.options.keep = 0).await,
            Code::InvalidRequest
        );
        assert_eq!(
            refused(&|asked| asked.options.keep = 512).await,
            Code::InvalidRequest
        );
        assert_eq!(
            refused(&|asked| asked.options.name = Some("n".repeat(48))).await,
            Code::InvalidName
        );
        assert_eq!(
            refused(&|asked| asked.disk = "raw".into()).await,
            Code::NotSupported
        );
        assert_eq!(
            refused(&|asked| asked.disk = "other".into()).await,
            Code::NotFound
        );
        run(&world.kms, caller(), every(24, 1)).await.unwrap();
        let before = schedule(&world).await.unwrap();
        let mut quotas = Quotas::default();
        quotas.insert(
            "default".into(),
            Quota {
                schedules: 1,
                ..Quota::default()
            },
        );
        Arc::get_mut(&mut world.kms).unwrap().quotas = quotas;
        // One that is changed is no second one.
        run(&world.kms, caller(), every(12, 3)).await.unwrap();
        let changed = schedule(&world).await.unwrap();
        assert_eq!((changed.id, changed.keep), (before.id, 3));
        let second = CreateDisk {
            name: "second".into(),
            store: None,
            ..new_disk(None)
        };
        run(&world.kms, caller(), second).await.unwrap();
        let mut asked = every(1, 1);
        asked.disk = "second".into();
        let refused = run(&world.kms, caller(), asked).await.err().unwrap();
        assert_eq!(refused.code(), Code::TooMany);
    }
}
