//! Crashes in the middle of what is done with layered stores: the next daemon asks the store what was made of it.

use sealblk_proto::message::Change;

use super::*;
use crate::calls::disk::reinit::{Decided, Reinitialise};
use crate::calls::disk::resize::Resize;
use crate::calls::disk::rollback::Rollback;
use crate::calls::image::delete::DeleteImage;
use crate::calls::snapshot::delete::DeleteSnapshot;
use crate::catalogue::states::DiskState;
use crate::catalogue::{behind, volumes};
use crate::volumes::make;
use sealblk_api::{self, CreateDisk, CreateImage, CreateSnapshot, RegisterInstance};

const MIB: u64 = 1 << 20;

fn layered() -> CreateDisk {
    CreateDisk {
        store: None,
        ..new_disk(None)
    }
}

fn clone_of(snapshot: &str) -> CreateDisk {
    CreateDisk {
        name: "clone".into(),
        size: None,
        snapshot: Some(snapshot.into()),
        encrypted: None,
        ..layered()
    }
}

fn new_snapshot(name: &str) -> CreateSnapshot {
    CreateSnapshot {
        disk: "data".into(),
        name: name.into(),
    }
}

fn resize(size: u64) -> Resize {
    Resize {
        disk: "data".into(),
        options: sealblk_api::Resize { size },
    }
}

fn rollback() -> Rollback {
    Rollback {
        disk: "data".into(),
        options: sealblk_api::Rollback {
            snapshot: "one".into(),
            force: true,
        },
    }
}

fn reinit() -> Reinitialise {
    Reinitialise {
        disk: "data".into(),
        options: sealblk_api::Reinitialise { force: true },
    }
}

fn delete_disk(disk: &str) -> calls::disk::delete::DeleteDisk {
    calls::disk::delete::DeleteDisk::new(disk.into(), Some(0))
}

fn delete_snapshot(snapshot: &str) -> DeleteSnapshot {
    DeleteSnapshot {
        snapshot: snapshot.into(),
    }
}

impl World {
    /// With the layered disk `data`, its snapshot `one`, and an instance; attached if that is wanted.
    async fn layered(attached: bool) -> Self {
        let world = World::new().await;
        run(&world.kms, caller(), layered()).await.unwrap();
        run(&world.kms, caller(), new_snapshot("one")).await.unwrap();
        let instance = RegisterInstance {
            name: "vm".into(),
            ..RegisterInstance::default()
        };
        run(&world.kms, caller(), instance).await.unwrap();
        if attached {
            run(&world.kms, caller(), new_attach()).await.unwrap();
        }
        world
    }

    /// Decides a call and, if that is wanted, makes its change; then the daemon dies, and another one starts.
    async fn interrupted<O: Operation<Decided = IntentRow>>(
        &mut self,
        operation: &O,
        change: Option<Change>,
    ) {
        let intent = self.kms.decide(&caller(), operation).await.unwrap();
        self.interrupted_after(&intent, change).await;
    }

    /// The same of a call that has been decided.
    async fn interrupted_after(&mut self, intent: &IntentRow, change: Option<Change>) {
        if let Some(change) = change {
            commands::change(&self.kms, &intent.disk, &intent.id, change)
                .await
                .unwrap();
        }
        self.crash_and_recover().await;
    }

    async fn snapshots(&self) -> Vec<(String, String)> {
        let mut db = self.kms.catalogue.read().await.unwrap();
        behind::rows(&mut db, "SELECT name, state FROM snapshots ORDER BY rowid").await
    }

    async fn snapshot_id(&self, name: &str) -> String {
        let mut db = self.kms.catalogue.read().await.unwrap();
        find::snapshot(&mut db, &caller(), None, name).await.unwrap().id
    }

    async fn count(&self, table: &'static str) -> i64 {
        let mut db = self.kms.catalogue.read().await.unwrap();
        behind::value(&mut db, &format!("SELECT count(*) FROM {table}")).await
    }

    async fn pins(&self, disk: &str) -> Vec<String> {
        let report = commands::report(&self.kms, disk).await.unwrap();
        report
            .snapshots
            .into_iter()
            .flat_map(|snapshot| snapshot.pins)
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_there_after_a_crash_if_its_store_has_it() {
    for attached in [false, true] {
        for made in [false, true] {
            let mut world = World::layered(attached).await;
            let intent = world.kms.decide(&caller(), &new_snapshot("two")).await.unwrap();
            assert_eq!(world.calls("snapshot").await, 2);
            if made {
                let change = Change::Snapshot {
                    snapshot: intent.work.snapshot().unwrap().to_owned(),
                };
                commands::change(&world.kms, &intent.disk, &intent.id, change)
                    .await
                    .unwrap();
            }
            world.crash_and_recover().await;
            let mut expected = vec![("one".to_owned(), "available".to_owned())];
            if made {
                expected.push(("two".to_owned(), "available".to_owned()));
            } else {
                assert_eq!(
                    world.last_decision().await,
                    ("snapshot.create".into(), "failed".into())
                );
            }
            assert_eq!(world.snapshots().await, expected);
            assert_eq!(world.calls("snapshot").await, 1 + u64::from(made));
            world.end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_and_reinit_are_never_done_twice() {
    for attached in [false, true] {
        for made in [false, true] {
            let mut world = World::layered(attached).await;
            let change = Change::Rollback {
                snapshot: world.snapshot_id("one").await,
                force: true,
            };
            world.interrupted(&rollback(), made.then_some(change)).await;
            let change = Change::Reinitialise { force: true };
            let Decided::Change(intent) = world.kms.decide(&caller(), &reinit()).await.unwrap() else {
                panic!("one change of a layered store");
            };
            world.interrupted_after(&intent, made.then_some(change)).await;
            let state = world.disk().await.unwrap().state;
            let expected = match attached {
                true => DiskState::InUse,
                false => DiskState::Available,
            };
            assert_eq!(state, expected);
            let (rollbacks, reinits) = (world.calls("rollback").await, world.calls("reinit").await);
            assert_eq!((rollbacks, reinits), (u64::from(made), u64::from(made)));
            world.end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_has_the_size_that_its_store_has() {
    for attached in [false, true] {
        for made in [false, true] {
            let mut world = World::layered(attached).await;
            let change = Change::Resize {
                size: 2 * MIB,
                hidden: false,
            };
            world.interrupted(&resize(2 * MIB), made.then_some(change)).await;
            let disk = world.disk().await.unwrap();
            assert_eq!(disk.size.unsigned_abs(), if made { 2 * MIB } else { MIB });
            assert_eq!(
                disk.state,
                if attached {
                    DiskState::InUse
                } else {
                    DiskState::Available
                }
            );
            world.end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_s_deletion_is_finished() {
    for made in [false, true] {
        let mut world = World::layered(false).await;
        let (intent, row) = world
            .kms
            .decide(&caller(), &delete_snapshot("one"))
            .await
            .unwrap();
        let intent = intent.unwrap();
        if made {
            let change = Change::DeleteSnapshot { snapshot: row.id };
            commands::change(&world.kms, &intent.disk, &intent.id, change)
                .await
                .unwrap();
        }
        world.crash_and_recover().await;
        assert_eq!(world.count("snapshots").await, 0);
        let report = commands::report(&world.kms, &intent.disk).await.unwrap();
        assert!(report.snapshots.is_empty());
    }
}

/// Whether or not what the disk alone held was given up before: its snapshots are as they were, and disks can be made from them.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_s_deletion_is_finished_and_its_snapshots_stay() {
    for in_bin in [false, true] {
        for made in [false, true] {
            let mut world = World::layered(false).await;
            let id = world.disk().await.unwrap().id;
            if in_bin {
                let delete = calls::disk::delete::DeleteDisk::new(id.clone(), Some(1));
                run(&world.kms, caller(), delete).await.unwrap();
            }
            world.kms.decide(&caller(), &delete_disk(&id)).await.unwrap();
            let intent = {
                let mut db = world.kms.catalogue.read().await.unwrap();
                intents::all(&mut db).await.unwrap().intents.remove(0)
            };
            let change = Change::Reinitialise { force: true };
            if made {
                commands::change(&world.kms, &id, &intent.id, change)
                    .await
                    .unwrap();
            }
            world.crash_and_recover().await;
            for (table, rows) in [("disks", 0), ("bin", 0), ("volumes", 1), ("lineages", 1)] {
                assert_eq!(world.count(table).await, rows, "{table}");
            }
            assert_eq!(
                world.snapshots().await,
                [("one".to_owned(), "available".to_owned())]
            );
            let report = commands::report(&world.kms, &id).await.unwrap();
            assert_eq!(report.snapshots.len(), 1);
            run(&world.kms, caller(), clone_of("one")).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_was_not_finished_leaves_neither_file_nor_pin() {
    for steps in 0..4 {
        let mut world = World::layered(false).await;
        let base = world.disk().await.unwrap();
        let intent = world.kms.decide(&caller(), &clone_of("one")).await.unwrap();
        assert_eq!(world.calls("create").await, 2);
        let snapshot = world.snapshot_id("one").await;
        let volume = world.volume(&intent.disk).await;
        if steps > 0 {
            commands::pin(&world.kms, &base.id, &intent.id, &snapshot, &intent.disk)
                .await
                .unwrap();
        }
        if steps > 1 {
            make::make_file(&world.kms, caller().uid, &volume).await.unwrap();
        }
        if steps > 2 {
            commands::create(&world.kms, &volume).await.unwrap();
        }
        world.crash_and_recover().await;
        assert_eq!(world.files(world.kms.state.disks()), 1);
        assert_eq!(
            (world.count("volumes").await, world.calls("create").await),
            (1, 1)
        );
        assert_eq!(world.count("lineages").await, 1, "it is the base's");
        assert!(world.pins(&base.id).await.is_empty());
        assert_eq!(world.files(world.kms.state.run()), 0);
    }
}

/// S07 and K14 over crashes: each of the deletions is interrupted at the decision, and finished by the next daemon.
#[tokio::test(flavor = "multi_thread")]
async fn deletions_of_disk_snapshot_and_clone_are_finished_and_the_last_takes_the_key() {
    let mut world = World::layered(false).await;
    run(&world.kms, caller(), clone_of("one")).await.unwrap();
    world.kms.decide(&caller(), &delete_disk("data")).await.unwrap();
    world.crash_and_recover().await;
    assert!(world.disk().await.is_none());
    assert_eq!(
        (world.count("volumes").await, world.count("snapshots").await),
        (2, 1)
    );
    world
        .kms
        .decide(&caller(), &delete_snapshot("one"))
        .await
        .unwrap();
    world.crash_and_recover().await;
    assert_eq!(world.snapshots().await, [("one".to_owned(), "hidden".to_owned())]);
    assert_eq!(
        (world.count("volumes").await, world.count("lineages").await),
        (2, 1)
    );
    world.kms.decide(&caller(), &delete_disk("clone")).await.unwrap();
    world.crash_and_recover().await;
    for table in ["volumes", "snapshots", "disks", "lineages"] {
        assert_eq!(world.count(table).await, 0, "{table}");
    }
    assert_eq!(world.files(world.kms.state.disks()), 0);
}

/// What only a restored catalogue brings about: the store is right about its snapshots, the catalogue about its clones.
#[tokio::test(flavor = "multi_thread")]
async fn catalogue_and_store_are_compared() {
    let world = World::layered(false).await;
    run(&world.kms, caller(), clone_of("one")).await.unwrap();
    run(&world.kms, caller(), new_snapshot("two")).await.unwrap();
    let disk = world.disk().await.unwrap().id;
    let (one, two) = (world.snapshot_id("one").await, world.snapshot_id("two").await);
    let clone = world.pins(&disk).await.pop().unwrap();
    // The pin is lost, a stranger's and an unknown clone's are there, a snapshot is missing, the disk has grown.
    commands::unpin(&world.kms, &disk, &one, &clone).await.unwrap();
    let stranger = id::new(Kind::Disk).unwrap();
    let unknown = id::new(Kind::Disk).unwrap();
    for pin in [&stranger, &unknown] {
        let operation = id::new(Kind::Intent).unwrap();
        commands::pin(&world.kms, &disk, &operation, &one, pin)
            .await
            .unwrap();
    }
    std::fs::write(world.kms.state.store(&unknown, None), "").unwrap();
    for change in [
        Change::DeleteSnapshot { snapshot: two },
        Change::Resize {
            size: 4 * MIB,
            hidden: false,
        },
    ] {
        let operation = id::new(Kind::Intent).unwrap();
        commands::change(&world.kms, &disk, &operation, change)
            .await
            .unwrap();
    }
    let mut tx = world.kms.catalogue.write().await.unwrap();
    volumes::forget_identities(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    reconcile::all(&world.kms).await.unwrap();
    let mut pins = world.pins(&disk).await;
    pins.sort();
    let mut expected = vec![clone, unknown];
    expected.sort();
    assert_eq!(pins, expected);
    assert_eq!(
        world.snapshots().await,
        [
            ("one".to_owned(), "available".to_owned()),
            ("two".to_owned(), "error".to_owned())
        ]
    );
    assert_eq!(world.disk().await.unwrap().size.unsigned_abs(), 4 * MIB);
    assert!(world.volume(&disk).await.compared);
}

async fn image_count(world: &World, state: &str) -> i64 {
    let mut db = world.kms.catalogue.read().await.unwrap();
    let count = format!("SELECT count(*) FROM images WHERE state = '{state}'");
    behind::value(&mut db, &count).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_disk_is_there_after_a_crash_if_its_snapshot_is() {
    for made in [false, true] {
        let mut world = World::layered(false).await;
        let create = CreateImage {
            name: "two".into(),
            disk: Some("data".into()),
            ..CreateImage::default()
        };
        world.kms.decide(&caller(), &create).await.unwrap();
        let intent = {
            let mut db = world.kms.catalogue.read().await.unwrap();
            intents::all(&mut db).await.unwrap().intents.pop().unwrap()
        };
        if made {
            let change = Change::Snapshot {
                snapshot: intent.work.snapshot().unwrap().to_owned(),
            };
            commands::change(&world.kms, &intent.disk, &intent.id, change)
                .await
                .unwrap();
        }
        world.crash_and_recover().await;
        assert_eq!(image_count(&world, "available").await, i64::from(made));
        assert_eq!(world.count("images").await, i64::from(made));
        assert_eq!(world.snapshots().await.len(), 1 + usize::from(made));
        assert_eq!(world.calls("snapshot").await, 1 + u64::from(made));
    }
}

/// S07: the image has gone from lists, and with it the snapshot that was kept for it alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_deletion_of_a_deleted_snapshot_s_last_image_is_finished() {
    let mut world = World::layered(false).await;
    let create = CreateImage {
        name: "base".into(),
        snapshot: Some("one".into()),
        ..CreateImage::default()
    };
    run(&world.kms, caller(), create).await.unwrap();
    run(&world.kms, caller(), delete_snapshot("one")).await.unwrap();
    let disk = world.disk().await.unwrap().id;
    let report = commands::report(&world.kms, &disk).await.unwrap();
    assert!(
        !report.snapshots[0].hidden,
        "the store keeps it as if it were not deleted"
    );
    let delete = DeleteImage { image: "base".into() };
    world.kms.decide(&caller(), &delete).await.unwrap();
    assert_eq!(image_count(&world, "deleting").await, 1);
    let again = world.kms.decide(&caller(), &delete).await;
    assert_eq!(again.unwrap_err().code(), Code::NotFound);
    world.crash_and_recover().await;
    for table in ["images", "snapshots"] {
        assert_eq!(world.count(table).await, 0, "{table}");
    }
    let report = commands::report(&world.kms, &disk).await.unwrap();
    assert!(report.snapshots.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_asked_by_one_process_however_many_look() {
    let world = World::layered(false).await;
    let disk = world.disk().await.unwrap().id;
    let processes = async || -> i64 {
        let mut db = world.kms.catalogue.read().await.unwrap();
        behind::value(&mut db, "SELECT next_serial FROM meta").await
    };
    let before = processes().await;
    let mut looks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (kms, disk) = (Arc::clone(&world.kms), disk.clone());
        looks.spawn(async move { report::of(&kms, &disk).await });
    }
    for known in looks.join_all().await {
        let known = known.unwrap().unwrap();
        assert_eq!((known.report.snapshots.len(), known.as_of), (1, None));
    }
    let begun = processes().await - before;
    assert!(begun <= 10, "{begun} processes for 40 looks");
    // Whoever looks after a change sees it.
    run(&world.kms, caller(), new_snapshot("two")).await.unwrap();
    let known = report::of(&world.kms, &disk).await.unwrap().unwrap();
    assert_eq!(known.report.snapshots.len(), 2);
}
