//! Disks leave the bin when their days are over (rule K14).
//!
//! Nothing of this is remembered beyond what the catalogue has: a removal that a crash has stopped is an intent.

use std::sync::{Arc, Weak};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::audit::{self, Decision};
use crate::catalogue::bin::{self, BinRow};
use crate::context::{Kms, facts};
use crate::error::{Code, Error, Result};
use crate::intents::delete_disk;
use crate::limits;
use crate::timekeeper::millis;

/// Removes them, as long as the KMS lives. Apart from all else that is done in the background: a disk's storage may hang.
pub(crate) async fn run(kms: Weak<Kms>) {
    loop {
        let Some(living) = kms.upgrade() else { return };
        match once(&living).await {
            Err(error) if error.code() == Code::ShuttingDown => return,
            Err(error) => log::error!("no disk leaves the bin: {}", error.full_message()),
            Ok(_) => {}
        }
        drop(living);
        tokio::time::sleep(limits::BIN_LOOK_TIME).await;
    }
}

/// One round: a few disks at once, as the storage of some may hang, and each by itself, so that the daemon's end waits for
/// these alone. Gives the ids of those that stay; why is logged.
///
/// # Errors
/// [`Code::ShuttingDown`]; the catalogue's.
pub(crate) async fn once(kms: &Arc<Kms>) -> Result<Vec<String>> {
    let due = {
        let _running = kms.begin().await?;
        let mut db = kms.catalogue.read().await?;
        bin::due(&mut db, kms.clock.now().seen, limits::BIN_BATCH).await?
    };
    let places = Arc::new(Semaphore::new(limits::BIN_REMOVALS));
    let mut tasks = JoinSet::new();
    for row in due {
        let (kms, places) = (Arc::clone(kms), Arc::clone(&places));
        tasks.spawn(async move {
            let _place = places.acquire_owned().await;
            let _running = kms.begin().await?;
            let gone = remove_or_postpone(&kms, &row).await;
            Ok::<_, Error>((!gone).then_some(row.disk.id))
        });
    }
    // All are waited for: what goes on when another must not begin would be stopped in the middle.
    let ended = tasks.join_all().await;
    let stay: Vec<_> = ended.into_iter().collect::<Result<_>>()?;
    Ok(stay.into_iter().flatten().collect())
}

/// Whether it is removed. A disk that cannot be lets those behind it go first.
async fn remove_or_postpone(kms: &Kms, row: &BinRow) -> bool {
    let Err(error) = remove(kms, row).await else {
        return true;
    };
    let id = &row.disk.id;
    log::error!("deleted disk {id} stays for the moment: {}", error.full_message());
    let postponed = async {
        let mut tx = kms.catalogue.write().await?;
        let again = kms.clock.now().seen + millis(limits::BIN_RETRY_TIME);
        bin::postpone(&mut tx, id, again).await?;
        Ok::<_, Error>(tx.commit().await?)
    };
    if let Err(error) = postponed.await {
        log::error!(
            "deleted disk {id} is tried again at once: {}",
            error.full_message()
        );
    }
    false
}

async fn remove(kms: &Kms, listed: &BinRow) -> Result<()> {
    let caller = kms.own_caller(&listed.disk.account)?;
    let _tracked = kms.retries.track(&caller.request);
    let mut tx = kms.catalogue.write().await?;
    // It may have been restored since it was listed.
    let Some(row) = bin::get(&mut tx, &listed.disk.id).await? else {
        return Ok(());
    };
    if !row.removal.is_due(&kms.clock.now()) {
        return Ok(());
    }
    let intent = delete_disk::open(kms, &caller, &mut tx, &row.disk).await?;
    facts::disk(&caller.facts, &listed.disk);
    caller.facts.note("retention_days", 0);
    caller.facts.note("reason", "retention");
    audit::append(
        &mut tx,
        &caller,
        intent.work.call(),
        &intent.disk,
        Decision::Allowed,
    )
    .await?;
    tx.commit().await?;
    delete_disk::carry_out(kms, &intent, std::future::ready(Ok(()))).await?;
    log::info!(
        "disk {} has left the bin: it was deleted on {}",
        intent.disk,
        row.deleted
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::calls::disk::delete::DeleteDisk;
    use crate::calls::disk::restore::RestoreDisk;
    use crate::calls::run;
    use crate::calls::tests::{World, caller, new_disk};
    use crate::catalogue::states::DiskState;
    use crate::catalogue::{behind, volumes};
    use crate::host::aside;
    use crate::jobs::key_work;
    use crate::timekeeper::DAY;
    use crate::timekeeper::fake::Fake;
    use crate::views;
    use sealblk_api::{CreateSnapshot, Disk};

    const HOUR: Duration = Duration::from_secs(3600);

    fn delete(days: Option<u16>) -> DeleteDisk {
        DeleteDisk::new("data".into(), days)
    }

    fn restore() -> RestoreDisk {
        RestoreDisk {
            disk: "data".into(),
            options: sealblk_api::RestoreDisk::default(),
        }
    }

    /// With an encrypted disk in the bin for seven days, and clocks that the test sets.
    async fn with_deleted_disk() -> (World, Fake) {
        let (mut world, clocks) = (World::new().await, Fake::new());
        world.keep_time_by(&clocks).await;
        key_work::once(&world.kms).await.unwrap();
        run(&world.kms, caller(), new_disk(None)).await.unwrap();
        run(&world.kms, caller(), delete(None)).await.unwrap();
        (world, clocks)
    }

    /// Time passes under the daemon's eyes.
    async fn pass(world: &World, clocks: &Fake, hours: u32) {
        for _ in 0..hours {
            clocks.pass(HOUR);
            key_work::once(&world.kms).await.unwrap();
            assert_eq!(once(&world.kms).await.unwrap(), [""; 0]);
        }
    }

    async fn deleted(world: &World) -> Vec<Disk> {
        let page = crate::catalogue::Page {
            after: String::new(),
            limit: 10,
        };
        views::bin::list(&world.kms, &caller(), &page)
            .await
            .unwrap()
            .disks
    }

    async fn removal(world: &World) -> String {
        deleted(world).await.remove(0).removal.unwrap()
    }

    async fn count(world: &World, table: &str) -> i64 {
        let mut db = world.kms.catalogue.read().await.unwrap();
        behind::value(&mut db, &format!("SELECT count(*) FROM {table}")).await
    }

    async fn assert_gone(world: &World) {
        for table in ["bin", "disks", "volumes", "lineages", "intents", "released"] {
            assert_eq!(count(world, table).await, 0, "{table}");
        }
        assert_eq!(world.files(world.kms.state.disks()), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k14_a_deleted_disk_goes_when_its_days_are_over_and_not_before() {
        let (world, clocks) = with_deleted_disk().await;
        pass(&world, &clocks, 7 * 24 - 1).await;
        assert_eq!(deleted(&world).await.len(), 1);
        assert_eq!(count(&world, "lineages").await, 1);
        assert_eq!(world.files(world.kms.state.disks()), 1);
        pass(&world, &clocks, 1).await;
        assert_gone(&world).await;
        assert_eq!(
            world.last_decision().await,
            ("disk.delete".into(), "allowed".into())
        );
        let mut db = world.kms.catalogue.read().await.unwrap();
        let records = audit::list(&mut db, "default", audit::Wanted::after(0, 1000)).await;
        let deletes = records
            .unwrap()
            .into_iter()
            .filter(|record| record.call == "disk.delete");
        let details: Vec<_> = deletes
            .map(|record| {
                let details = record.details.unwrap();
                (details["retention_days"].as_u64(), details.get("reason").cloned())
            })
            .collect();
        assert_eq!(details, [(Some(7), None), (Some(0), Some("retention".into()))]);
    }

    /// The clock of a host is wrong when it boots, or a time server is: what is removed then is lost for ever.
    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k14_neither_a_clock_that_jumps_nor_time_that_nobody_saw_removes_a_disk() {
        let (mut world, clocks) = with_deleted_disk().await;
        let promised = removal(&world).await;
        assert_eq!(promised, "2026-11-27T00:00:00.000Z");
        clocks.jump(400 * DAY);
        pass(&world, &clocks, 1).await;
        assert_eq!(deleted(&world).await.len(), 1);
        assert_eq!(removal(&world).await, "2028-01-01T00:00:00.000Z", "by that clock");
        clocks.jump(-400 * DAY);
        pass(&world, &clocks, 1).await;
        assert_eq!(removal(&world).await, promised);
        clocks.reboot(30 * DAY);
        world.keep_time_by(&clocks).await;
        pass(&world, &clocks, 7 * 24 - 3).await;
        assert_eq!(deleted(&world).await.len(), 1);
        let restored = run(&world.kms, caller(), restore()).await.unwrap();
        assert_eq!(restored.state, "available");
        pass(&world, &clocks, 2).await;
        assert!(
            world.disk().await.is_some(),
            "it was restored in time, and is deleted no more"
        );
        run(&world.kms, caller(), delete(Some(1))).await.unwrap();
        pass(&world, &clocks, 24).await;
        assert_gone(&world).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_removal_that_a_crash_has_stopped_is_finished() {
        for file_removed in [false, true] {
            let (mut world, _) = with_deleted_disk().await;
            let id = deleted(&world).await.remove(0).id;
            let now = DeleteDisk::new(id.clone(), Some(0));
            world.kms.decide(&caller(), &now).await.unwrap();
            let refused = run(&world.kms, caller(), restore()).await.err().unwrap();
            assert_eq!(refused.code(), Code::DiskNotAvailable);
            if file_removed {
                std::fs::remove_file(world.kms.state.store(&id, None)).unwrap();
            }
            world.crash_and_recover().await;
            assert_gone(&world).await;
        }
    }

    /// Between the decision to delete and to restore nothing else is written, so that there is nothing to be half done.
    #[tokio::test(flavor = "multi_thread")]
    async fn deleting_and_restoring_are_done_when_they_are_decided() {
        let (mut world, _) = with_deleted_disk().await;
        world.kms.decide(&caller(), &restore()).await.unwrap();
        world.crash_and_recover().await;
        assert_eq!(world.disk().await.unwrap().state, DiskState::Available);
        world.kms.decide(&caller(), &delete(None)).await.unwrap();
        world.crash_and_recover().await;
        assert!(world.disk().await.is_none());
        assert_eq!(
            (deleted(&world).await.len(), count(&world, "released").await),
            (1, 0)
        );
        assert_eq!(world.files(world.kms.state.disks()), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_whose_file_is_missing_leaves_the_bin_all_the_same() {
        let (world, clocks) = with_deleted_disk().await;
        let id = deleted(&world).await.remove(0).id;
        std::fs::remove_file(world.kms.state.store(&id, None)).unwrap();
        pass(&world, &clocks, 7 * 24).await;
        assert_gone(&world).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_cannot_be_removed_stays_in_the_bin_and_is_tried_again_an_hour_later() {
        let (world, clocks) = with_deleted_disk().await;
        let id = deleted(&world).await.remove(0).id;
        let path = world.kms.state.store(&id, None);
        // A directory in its place is no file that could be removed.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir_all(path.join("in the way")).unwrap();
        pass(&world, &clocks, 7 * 24 - 1).await;
        clocks.pass(HOUR);
        key_work::once(&world.kms).await.unwrap();
        assert_eq!(once(&world.kms).await.unwrap(), [id]);
        assert_eq!(
            world.last_decision().await,
            ("disk.delete".into(), "failed".into())
        );
        assert_eq!(count(&world, "intents").await, 0);
        assert_eq!(once(&world.kms).await.unwrap(), [""; 0]);
        assert_eq!(deleted(&world).await.len(), 1);
        std::fs::remove_dir_all(&path).unwrap();
        pass(&world, &clocks, 1).await;
        assert_gone(&world).await;
    }

    /// What is removed while the wall clock is wrong may have been promised for longer by the right one.
    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k14_a_disk_stays_until_the_wall_clock_too_says_its_day() {
        let (world, clocks) = with_deleted_disk().await;
        clocks.jump(-millis(HOUR) / 2);
        pass(&world, &clocks, 7 * 24).await;
        assert_eq!(deleted(&world).await.len(), 1);
        pass(&world, &clocks, 1).await;
        assert_gone(&world).await;
    }

    /// In the bin for a day, which has passed. Gives their ids.
    async fn with_disks_due(number: usize) -> (World, Fake, Vec<String>) {
        let (mut world, clocks) = (World::new().await, Fake::new());
        world.keep_time_by(&clocks).await;
        for number in 0..number {
            let disk = sealblk_api::CreateDisk {
                name: format!("data-{number}"),
                encrypted: Some(false),
                ..new_disk(None)
            };
            run(&world.kms, caller(), disk.clone()).await.unwrap();
            run(&world.kms, caller(), DeleteDisk::new(disk.name, Some(1)))
                .await
                .unwrap();
        }
        for _ in 0..24 {
            clocks.pass(HOUR);
            key_work::once(&world.kms).await.unwrap();
        }
        let ids = deleted(&world).await.into_iter().map(|disk| disk.id).collect();
        (world, clocks, ids)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_disk_that_cannot_be_removed_is_named_and_lets_the_others_go() {
        let (world, _, mut ids) = with_disks_due(3).await;
        for id in &ids[..2] {
            let path = world.kms.state.store(id, None);
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir_all(path.join("in the way")).unwrap();
        }
        let mut stay = once(&world.kms).await.unwrap();
        stay.sort();
        ids.pop();
        assert_eq!(stay, ids);
        assert_eq!(count(&world, "bin").await, 2);
        assert_eq!(once(&world.kms).await.unwrap(), [""; 0], "both are postponed");
    }

    /// Whatever their number, they would be the first of each round.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_of_which_something_is_under_way_is_postponed_too() {
        let (mut world, clocks) = (World::new().await, Fake::new());
        world.keep_time_by(&clocks).await;
        let layered = sealblk_api::CreateDisk {
            store: None,
            ..new_disk(None)
        };
        run(&world.kms, caller(), layered).await.unwrap();
        let snapshot = CreateSnapshot {
            disk: "data".into(),
            name: "one".into(),
        };
        let snapshot = run(&world.kms, caller(), snapshot).await.unwrap();
        run(&world.kms, caller(), delete(Some(1))).await.unwrap();
        let under_way = crate::calls::snapshot::delete::DeleteSnapshot {
            snapshot: snapshot.id,
        };
        pass(&world, &clocks, 23).await;
        world.kms.decide(&caller(), &under_way).await.unwrap();
        clocks.pass(HOUR);
        key_work::once(&world.kms).await.unwrap();
        assert_eq!(once(&world.kms).await.unwrap().len(), 1);
        assert_eq!(once(&world.kms).await.unwrap(), [""; 0]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_medium_that_hangs_for_a_moment_leaves_the_disk_as_it_was() {
        let (world, _, ids) = with_disks_due(1).await;
        let (answer, hangs) = std::sync::mpsc::channel::<()>();
        let path = world.kms.state.store(&ids[0], None);
        let hanging = move |_: &std::path::Path| Ok::<_, Error>(hangs.recv().is_ok());
        let lost = aside::work(&path, Duration::from_millis(20), hanging).await;
        assert_eq!(lost.unwrap_err().code(), Code::StorageHangs);
        assert_eq!(once(&world.kms).await.unwrap(), ids);
        drop(answer);
        let mut db = world.kms.catalogue.read().await.unwrap();
        let state: String = behind::value(&mut db, "SELECT state FROM bin").await;
        assert_eq!(state, "available");
    }

    /// Whose storage takes its time, so that others are begun meanwhile; but none any more when the daemon is to end.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_few_are_removed_at_once_and_none_is_begun_when_the_daemon_ends() {
        let (world, _, ids) = with_disks_due(limits::BIN_REMOVALS + 2).await;
        let mut locks = Vec::new();
        for id in &ids {
            locks.push(world.kms.supervisor.lock(id).await);
        }
        let kms = Arc::clone(&world.kms);
        let round = tokio::spawn(async move { once(&kms).await });
        let most = i64::try_from(limits::BIN_REMOVALS).unwrap();
        while count(&world, "intents").await < most {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut end = std::pin::pin!(world.kms.end());
        tokio::select! {
            biased;
            () = &mut end => panic!("some are being removed"),
            () = std::future::ready(()) => drop(locks),
        }
        end.await;
        assert_eq!(round.await.unwrap().unwrap_err().code(), Code::ShuttingDown);
        assert_eq!(
            (count(&world, "bin").await, count(&world, "intents").await),
            (2, 0)
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn snapshots_outlive_a_disk_that_leaves_the_bin_and_hold_its_file() {
        let (mut world, clocks) = (World::new().await, Fake::new());
        world.keep_time_by(&clocks).await;
        let layered = sealblk_api::CreateDisk {
            store: None,
            ..new_disk(None)
        };
        run(&world.kms, caller(), layered).await.unwrap();
        let snapshot = CreateSnapshot {
            disk: "data".into(),
            name: "one".into(),
        };
        let snapshot = run(&world.kms, caller(), snapshot).await.unwrap();
        run(&world.kms, caller(), delete(Some(1))).await.unwrap();
        pass(&world, &clocks, 24).await;
        assert_eq!(
            (count(&world, "bin").await, count(&world, "volumes").await),
            (0, 1)
        );
        let gone = crate::calls::snapshot::delete::DeleteSnapshot {
            snapshot: snapshot.id,
        };
        run(&world.kms, caller(), gone).await.unwrap();
        assert_gone(&world).await;
    }

    /// What was restored since the backup was taken, and is in use, must not go because the backup still has it in the bin.
    #[tokio::test(flavor = "multi_thread")]
    async fn after_the_restore_of_a_catalogue_the_days_begin_anew() {
        let (world, clocks) = with_deleted_disk().await;
        pass(&world, &clocks, 6 * 24).await;
        {
            let mut tx = world.kms.catalogue.write().await.unwrap();
            volumes::forget_identities(&mut tx).await.unwrap();
            bin::begin_anew(&mut tx, world.kms.clock.now().seen)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
        assert_eq!(removal(&world).await, "2026-12-03T00:00:00.000Z");
        pass(&world, &clocks, 7 * 24 - 1).await;
        assert_eq!(deleted(&world).await.len(), 1);
        pass(&world, &clocks, 1).await;
        assert_gone(&world).await;
    }
}
