//! Bugs that were found, each with its story.

use std::time::Duration;

use sealblk::store::layered::{LayeredError, Medium, ObjectId, Operation, OperationError};

use crate::medium::{Image, Limits, Recording};
use crate::rng::Rng;
use crate::script::{Run, Step};
use crate::worker::{Disk, boot, create};

const CLUSTER: u64 = 128;

fn limited(clusters: u64) -> Limits {
    Limits {
        bytes: clusters << 16,
        pages: usize::MAX,
    }
}

/// Recovery gave all clusters back that a record of the journal frees, and so also those that a later record had
/// taken again: the next write went over their data.
#[test]
fn a_cluster_that_was_freed_and_used_again_before_a_crash_stays_in_use() {
    let mut run = Run::new(4 * CLUSTER);
    run.medium.set_limits(limited(37));
    for round in 0..40 {
        run.steps(&[
            Step::Write(round % 2 * CLUSTER, CLUSTER),
            Step::Discard(round % 2 * CLUSTER, CLUSTER),
            Step::Background,
            Step::Background,
        ]);
    }
    run.steps(&[
        Step::Write(0, CLUSTER),
        Step::Write(2 * CLUSTER, CLUSTER),
        Step::Flush,
    ]);
    let first = run.position();
    run.crash(first, 4, &mut Rng::new(1, 1));
}

/// A clone could not be made of a snapshot that was on its way to the medium; or it was made of pages that recovery
/// wrote elsewhere, after a power cut at the wrong moment. Now who pins a snapshot waits until it is there.
#[test]
fn a_snapshot_can_be_cloned_at_once() {
    let mut run = Run::new(4 * CLUSTER);
    run.steps(&[Step::Write(0, 200), Step::Snapshot, Step::Clone(0)]);
    run.crash(0, 16, &mut Rng::new(1, 2));
}

/// The record of a rollback was written before the snapshot's map was read. If that was damaged, the store failed, and
/// could not be opened any more, since the record could not be replayed either.
#[test]
fn a_rollback_to_a_damaged_snapshot_changes_nothing() {
    let mut run = Run::new(4 * CLUSTER);
    run.steps(&[Step::Write(0, 200), Step::Snapshot, Step::Checkpoint]);
    let snapshot = run.visible()[0];
    // Whatever the snapshot's map and the disk's share is read when the store is opened, so they must differ.
    run.steps(&[Step::Write(0, 8), Step::Checkpoint, Step::Checkpoint]);
    let root = map_root_of(&run).expect("the map of the snapshot has a root");
    run.medium.write(root * 4096 + 2000, &[0xff; 16]).unwrap();
    let before = run.disk.read_all().unwrap();
    let operation = ObjectId(*b"operation0000000");
    let refused = run.disk.store.operate(operation, Operation::Rollback(snapshot));
    assert!(matches!(refused, Err(OperationError::Store(_))), "{refused:?}");
    assert!(!run.disk.store.has_failed());
    run.disk.write(0, 8, 77).unwrap();
    let again = Disk::open(run.medium.clone(), Vec::new(), boot(0)).unwrap();
    let found = again.read_all().unwrap();
    assert_eq!(found[..8], [77; 8]);
    assert_eq!(found[8..], before[8..]);
}

/// The first root of a map that was written in the generation that the first snapshot ends.
fn map_root_of(run: &Run) -> Option<u64> {
    run.medium.events().iter().find_map(|event| match event {
        crate::medium::Event::Write { offset, bytes } if bytes.len() == 4096 => {
            // Its place among those of its kind: level << 32 | number.
            let position = u64::from_le_bytes(bytes[40..48].try_into().unwrap());
            let generation = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
            let kind = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            (kind == 2 && position == 3 << 32 && generation == 2).then_some(offset / 4096)
        }
        _ => None,
    })
}

/// With freed clusters wanted and a request in flight, the background went round without a pause until the request
/// ended, and never came back to who called it.
#[test]
fn the_background_does_not_wait_for_requests_in_flight() {
    let mut run = Run::new(40 * CLUSTER);
    run.medium.set_limits(limited(37));
    run.steps(&[Step::Write(0, 4 * CLUSTER), Step::Discard(0, 2 * CLUSTER)]);
    let part = run.disk.try_begin(3 * CLUSTER, 8, 5).unwrap().unwrap();
    run.disk.store.step().unwrap();
    // Nothing is free until the part has ended.
    let mut at = 4 * CLUSTER;
    while let Ok(Some(other)) = run.disk.try_begin(at, CLUSTER, 6) {
        let other = run.disk.put(other).unwrap();
        run.disk.finish(other).unwrap();
        at += CLUSTER;
    }
    run.disk.store.work().unwrap();
    let part = run.disk.put(part).unwrap();
    run.disk.finish(part).unwrap();
    run.disk.store.work().unwrap();
    run.disk.store.work().unwrap();
    run.disk.write(at, CLUSTER, 7).unwrap();
}

/// What the disk shares was not counted in parts of the map that were written since the store was opened.
#[test]
fn new_parts_of_the_map_count_as_shared() {
    let mut run = Run::new(300 * CLUSTER);
    run.steps(&[Step::Write(260 * CLUSTER, CLUSTER), Step::Snapshot]);
    assert_eq!(run.disk.store.report().unwrap().shared, 64 << 10);
}

/// An arena that was kept ready for more of the map than a small disk has took the room for its data.
#[test]
fn a_small_disk_fits_a_small_medium() {
    let medium = Recording::new(Image::default(), limited(17 + 4 + 12));
    create(&medium, 4 * CLUSTER, 1, None).unwrap();
    let disk = Disk::open(medium, Vec::new(), boot(0)).unwrap();
    disk.store.work().unwrap();
    disk.write(0, 4 * CLUSTER, 9).unwrap();
    assert_eq!(disk.read_all().unwrap(), vec![9; 4 * CLUSTER as usize]);
}

/// A write that joined another one in the same cluster, which had been planned before a snapshot, went to where that one
/// goes, and so over the snapshot's data: the snapshot had it, and not what was acknowledged before it was submitted.
#[test]
fn a_write_after_a_snapshot_does_not_follow_one_from_before_it() {
    let run = Run::new(4 * CLUSTER);
    run.disk.write(0, 8, 1).unwrap();
    let (operation, id) = (ObjectId(*b"operation0000000"), ObjectId(*b"snapshot00000000"));
    // A snapshot waits for what is in flight, and then for what has begun meanwhile: that is the one to begin here.
    let (before, taking) = loop {
        let first = run.disk.try_begin(3 * CLUSTER, 8, 5).unwrap().unwrap();
        let store = run.disk.store.clone();
        let taking = std::thread::spawn(move || store.operate(operation, Operation::Snapshot(id)));
        std::thread::sleep(Duration::from_millis(20));
        let before = run.disk.try_begin(40, 8, 2).unwrap().unwrap();
        let first = run.disk.put(first).unwrap();
        run.disk.finish(first).unwrap();
        while !run.disk.store.was_made(operation) && !taking.is_finished() {
            std::thread::yield_now();
        }
        if run.disk.store.was_made(operation) {
            break (before, taking);
        }
        // It began too early, and so was waited for as well.
        let refused = taking.join().unwrap();
        assert!(matches!(refused, Err(OperationError::Busy)), "{refused:?}");
        let before = run.disk.put(before).unwrap();
        run.disk.finish(before).unwrap();
    };
    run.disk.write(2 * CLUSTER, 8, 3).unwrap();
    let after = run.disk.try_begin(0, 8, 4).unwrap();
    let after = after.map(|part| run.disk.put(part).unwrap());
    let before = run.disk.put(before).unwrap();
    run.disk.finish(before).unwrap();
    match after {
        Some(part) => run.disk.finish(part).unwrap(),
        None => run.disk.write(0, 8, 4).unwrap(),
    }
    taking.join().unwrap().unwrap();
    assert_eq!(run.disk.read(0, 8).unwrap(), [4; 8]);
    let kept = Recording::new(run.medium.image(), Limits::NONE);
    let kept = Disk::open(kept, Vec::new(), boot(0)).unwrap();
    kept.store
        .operate(ObjectId::NONE, Operation::Rollback(id))
        .unwrap();
    assert_eq!(kept.read(2 * CLUSTER, 8).unwrap(), [0; 8], "after the snapshot");
    assert_eq!(kept.read(0, 8).unwrap(), [1; 8]);
}

/// On a medium without room, a snapshot that had to wait for a checkpoint began one that could not be ended, and the store
/// failed with all that was in it.
#[test]
fn a_full_medium_refuses_snapshots_and_goes_on() {
    let mut run = Run::new(4 * CLUSTER);
    run.steps(&[Step::Write(0, 200)]);
    run.medium.set_limits(limited(39));
    // Each keeps a cluster and pages of the map, until there are none.
    let refused = (0..1000u64).any(|number| {
        let id = ObjectId(format!("{number:016}").as_bytes().try_into().unwrap());
        // The medium may be too full for this already.
        let _ = run.disk.write(number % 4 * CLUSTER, 8, 5);
        match run.disk.store.operate(ObjectId::NONE, Operation::Snapshot(id)) {
            Ok(()) => false,
            Err(OperationError::Store(LayeredError::NoSpace)) => true,
            Err(error) => panic!("{error}"),
        }
    });
    assert!(refused && !run.disk.store.has_failed());
    let kept = run.disk.store.report().unwrap().snapshots;
    for snapshot in &kept {
        let what = Operation::Delete(snapshot.id);
        run.disk.store.operate(ObjectId::NONE, what).unwrap();
    }
    run.disk.store.work().unwrap();
    assert_eq!(run.disk.store.report().unwrap().snapshots, []);
    run.disk.write(0, 200, 7).unwrap();
    run.disk.flush().unwrap();
    let again = Disk::open(run.medium.clone(), Vec::new(), boot(1)).unwrap();
    assert_eq!(again.read(0, 200).unwrap(), [7; 200]);
}
