//! What goes on, and what does not, while a medium is slow or after it has failed.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::gated::Gated;
use super::{LayeredStore, NewStore, ObjectId, OpenLayered, Operation, OperationError, Uuid};
use crate::store::plan::{Planned, WritePlan};
use crate::units::{ByteLen, Capacity};

const CLUSTER: u64 = 128;

fn capacity() -> Capacity {
    Capacity::new(ByteLen(1 << 20)).unwrap()
}

fn store() -> (Gated, LayeredStore<Gated>) {
    let medium = Gated::new();
    let new = NewStore {
        uuid: Uuid([1; 16]),
        capacity: capacity(),
        disk: ObjectId([b'd'; 16]),
        lineage: ObjectId::NONE,
    };
    new.create_with_journal(&medium, None, 1).unwrap();
    let how = OpenLayered {
        boot: [2; 16],
        load: false,
    };
    let store = how.open(medium.clone(), Vec::new()).unwrap();
    (medium, store)
}

fn id(byte: u8) -> ObjectId {
    ObjectId([byte; 16])
}

/// Maps one cluster; its data is of no interest.
fn write(store: &LayeredStore<Gated>, cluster: u64) {
    let wake = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    let range = capacity().range(cluster * CLUSTER, CLUSTER).unwrap();
    loop {
        match store.plan_write(range, &wake).unwrap() {
            Planned::Later => _ = store.step().unwrap(),
            Planned::Now(WritePlan::InPlace { pass, .. }) => return store.end(pass),
            Planned::Now(WritePlan::Change(change)) => return store.commit(&mut vec![change]).unwrap(),
        }
    }
}

#[test]
fn requests_go_on_while_the_medium_is_slow_to_give_the_metadata_room() {
    let (medium, store) = store();
    write(&store, 0);
    let free = {
        let mut state = store.state();
        let free = state.space.free_pages();
        while state.space.take_page().is_some() {}
        free
    };
    medium.gate().stops_a_reservation = true;
    std::thread::scope(|scope| {
        scope.spawn(|| store.prepare_arena());
        medium.wait_for_stopped(1);
        let range = capacity().range(0, CLUSTER).unwrap();
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        match store.plan_write(range, &wake) {
            Ok(Planned::Now(WritePlan::InPlace { pass, .. })) => store.end(pass),
            other => panic!("{other:?}"),
        }
        assert!(store.allocated() > 0, "what is behind the lock");
        medium.open();
    });
    assert!(store.state().space.free_pages() >= free.min(16));
}

#[test]
fn a_snapshot_that_would_wait_too_long_for_requests_is_not_made() {
    let (medium, store) = store();
    write(&store, 0);
    let wake = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    let range = capacity().range(0, CLUSTER).unwrap();
    // A request that does not end.
    let Ok(Planned::Now(WritePlan::InPlace { pass, .. })) = store.plan_write(range, &wake) else {
        panic!("the cluster is the disk's own");
    };
    let refused = store.operate(id(1), Operation::Snapshot(id(2)));
    assert!(matches!(refused, Err(OperationError::Busy)), "{refused:?}");
    assert!(store.report().unwrap().snapshots.is_empty());
    // Its like, that has begun when it seemed that all had ended.
    let what = Operation::Snapshot(id(4));
    {
        let _held = store.maintain();
        assert!(!store.make(id(3), what, None).unwrap());
    }
    assert!(!store.was_made(id(1)) && !store.was_made(id(3)));
    // Others can go on, and whoever opens the store finds nothing of it either.
    store
        .operate(id(5), Operation::Resize(capacity().sectors()))
        .unwrap();
    let how = OpenLayered {
        boot: [2; 16],
        load: false,
    };
    drop((store, pass));
    let store = how.open(medium, Vec::new()).unwrap();
    assert!(!store.was_made(id(3)) && store.was_made(id(5)));
    assert!(
        store
            .report()
            .unwrap()
            .snapshots
            .iter()
            .all(|snapshot| snapshot.hidden)
    );
    store.operate(id(6), what).unwrap_err();
    store.operate(id(7), Operation::Snapshot(id(8))).unwrap();
    store.work().unwrap();
    let left = store.report().unwrap().snapshots;
    assert_eq!(
        left.iter().map(|snapshot| snapshot.id).collect::<Vec<_>>(),
        [id(8)]
    );
    write(&store, 0);
}

#[test]
fn syncs_take_turns_and_who_has_waited_for_one_that_failed_vouches_for_nothing() {
    let (medium, store) = store();
    write(&store, 0);
    let mut gate = medium.gate();
    gate.stops_syncs = true;
    gate.fails_a_sync = true;
    gate.most_syncing = 0;
    drop(gate);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| store.sync());
        medium.wait_for_stopped(1);
        let second = scope.spawn(|| store.sync());
        let checkpoint = scope.spawn(|| store.checkpoint_now());
        medium.soon_stopped(2);
        medium.open();
        assert!(first.join().unwrap().is_err());
        assert!(second.join().unwrap().is_err());
        assert!(checkpoint.join().unwrap().is_err());
    });
    assert_eq!(medium.gate().most_syncing, 1, "syncs at once");
    let cause = store.poison().cause().unwrap();
    assert!(cause.ends_with("Input/output error (os error 5)"), "{cause}");
}

#[test]
fn nothing_counts_any_more_once_a_guests_flush_has_failed() {
    let (medium, store) = store();
    write(&store, 0);
    medium.gate().stops_syncs = true;
    std::thread::scope(|scope| {
        let checkpoint = scope.spawn(|| store.checkpoint_now());
        medium.wait_for_stopped(1);
        // As a queue worker tells it, of the description for data.
        let error = io::Error::from_raw_os_error(libc::EIO);
        store.poison().set("a flush has failed", &error);
        let before = medium.gate().writes;
        medium.open();
        assert!(checkpoint.join().unwrap().is_err());
        assert_eq!(medium.gate().writes, before, "a superblock");
    });
    let before = medium.counts();
    let wake = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    let range = capacity().range(0, 8).unwrap();
    assert!(store.plan_write(range, &wake).is_err());
    assert!(store.plan_read(range, &wake).is_err());
    assert!(store.sync().is_err());
    assert!(store.mark(store.begin_flush()).is_err());
    assert!(store.operate(id(1), Operation::Snapshot(id(2))).is_err());
    assert!(store.checkpoint_now().is_err());
    assert!(store.check_all(false).is_err());
    assert!(!store.step().unwrap());
    assert_eq!(medium.counts(), before);
}

#[test]
fn a_report_holds_up_neither_checkpoints_nor_snapshots() {
    let (medium, store) = store();
    write(&store, 0);
    store.operate(id(1), Operation::Snapshot(id(2))).unwrap();
    store.checkpoint_now().unwrap();
    // So that the disk's map and the snapshot's differ.
    write(&store, 0);
    medium.gate().stops_a_read = true;
    std::thread::scope(|scope| {
        let report = scope.spawn(|| store.report().unwrap());
        medium.wait_for_stopped(1);
        store.checkpoint_now().unwrap();
        store.operate(id(3), Operation::Snapshot(id(4))).unwrap();
        store.operate(id(5), Operation::Delete(id(4))).unwrap();
        store.work().unwrap();
        medium.open();
        let report = report.join().unwrap();
        assert_eq!(report.snapshots.len(), 1);
        assert_eq!(report.snapshots[0].unique_bytes, 64 << 10);
    });
}

/// Its pages are used again, for others.
#[test]
fn a_snapshot_that_goes_while_it_is_looked_at_is_not_reported_and_no_damage() {
    let (medium, store) = store();
    write(&store, 0);
    store.operate(id(1), Operation::Snapshot(id(2))).unwrap();
    store.checkpoint_now().unwrap();
    write(&store, 0);
    medium.gate().stops_a_read = true;
    std::thread::scope(|scope| {
        let report = scope.spawn(|| store.report());
        medium.wait_for_stopped(1);
        store.operate(id(3), Operation::Delete(id(2))).unwrap();
        for _ in 0..8 {
            store.work().unwrap();
            write(&store, 1);
            store.checkpoint_now().unwrap();
            store.operate(ObjectId::NONE, Operation::Reinitialise).unwrap();
        }
        store.work().unwrap();
        medium.open();
        assert_eq!(report.join().unwrap().unwrap().snapshots, []);
    });
}
