//! The change of generation: a snapshot forbids overwriting in place, waits for those who still do it, and copies.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};

use super::epoch::Epochs;
use super::sync::set_thread_index;
use super::table::{Births, is_own};
use super::{LiveMap, empty_map, explore, plain};

/// A disk whose one block lies in physical cluster 1, born in generation 5, after the snapshot of generation 4.
struct Disk {
    map: LiveMap,
    births: Births,
    floor: AtomicU32,
    epochs: Epochs,
    /// Contents of physical clusters 0 to 2. Writes to one of them go on side by side, each to blocks of its own: for
    /// loom they are shared uses, and the copy or the filling of a cluster is an exclusive one.
    clusters: [UnsafeCell<()>; 3],
}

impl Disk {
    fn new(shards: usize) -> Self {
        let disk = Disk {
            map: empty_map(0),
            births: Births::new(),
            floor: AtomicU32::new(4),
            epochs: Epochs::new(shards),
            clusters: [(); 3].map(UnsafeCell::new),
        };
        disk.births.set(1, 5);
        disk.map.set(0, plain(1, 1)).unwrap();
        disk
    }

    /// A guest's write: in place, or, if that is not allowed, not at all (the mutator would do it).
    fn write(&self) {
        let pass = self.epochs.enter();
        let floor = self.floor.load(Ordering::Acquire);
        let part = self.map.get(0).unwrap().front;
        let in_place = is_own(&self.births, floor, part);
        if in_place {
            self.clusters[part.cluster as usize].with(|_| ());
        }
        self.epochs.exit(pass);
        assert!(
            in_place || part.cluster == 1,
            "cluster 2 is younger than any snapshot"
        );
    }

    /// Takes a snapshot and copies the block to cluster 2, which is then the live disk's own.
    fn snapshot(&self) {
        self.floor.store(5, Ordering::Release);
        let epoch = self.epochs.try_advance().unwrap();
        if !self.epochs.settled(epoch) {
            return;
        }
        self.clusters[1].with_mut(|_| ());
        self.clusters[2].with_mut(|_| ());
        self.births.set(2, 6);
        self.map.set(0, plain(2, 1)).unwrap();
    }
}

fn snapshot_beside_writes(shards: usize, writers: usize, preemptions: usize) {
    explore(preemptions, move || {
        let disk = Arc::new(Disk::new(shards));
        let writers: Vec<_> = (0..writers)
            .map(|shard| {
                let disk = Arc::clone(&disk);
                loom::thread::spawn(move || {
                    set_thread_index(shard);
                    disk.write();
                })
            })
            .collect();
        disk.snapshot();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert!(disk.epochs.settled(1));
    });
}

#[test]
fn no_write_in_place_meets_the_copy() {
    snapshot_beside_writes(1, 1, 4);
}

#[test]
fn nor_do_two_writes_of_one_queue() {
    snapshot_beside_writes(1, 2, 3);
}

#[test]
fn nor_do_writes_of_two_queues() {
    snapshot_beside_writes(2, 2, 3);
}
