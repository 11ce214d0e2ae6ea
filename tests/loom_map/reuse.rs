//! Splits that the map no longer names are used again, for another entry, when the epochs say that no lookup reads
//! them; and what the epochs promise by themselves.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};

use super::epoch::Epochs;
use super::sync::set_thread_index;
use super::{LiveMap, empty_map, explore, plain, split};

struct Store {
    map: LiveMap,
    epochs: Epochs,
}

/// A request on another thread, in shard `shard`, that looks cluster 0 up and never finds what belongs to cluster 1.
fn request(store: &Arc<Store>, shard: usize) -> loom::thread::JoinHandle<()> {
    let store = Arc::clone(store);
    loom::thread::spawn(move || {
        set_thread_index(shard);
        let pass = store.epochs.enter();
        let seen = store.map.get(0).unwrap();
        store.epochs.exit(pass);
        assert!(
            seen == split((1, 0b01), (2, 0b10)) || seen == plain(1, 0b11),
            "{seen:?}"
        );
    })
}

/// Retires the only split, which the entry of cluster 0 has, and gives it to cluster 1 when that is allowed.
fn reuse_beside_requests(shards: usize, requests: usize, preemptions: usize) {
    explore(preemptions, move || {
        let store = Arc::new(Store {
            map: empty_map(1),
            epochs: Epochs::new(shards),
        });
        store.map.set(0, split((1, 0b01), (2, 0b10))).unwrap();
        let requests: Vec<_> = (0..requests).map(|at| request(&store, at)).collect();

        store.map.set(0, plain(1, 0b11)).unwrap();
        let retired = store.map.take_retired();
        let epoch = store.epochs.try_advance().unwrap();
        let settled = store.epochs.settled(epoch);
        let foreign = split((8, 0b10), (9, 0b01));
        if settled {
            store.map.release(retired);
            store.map.set(1, foreign).unwrap();
        } else {
            assert!(store.map.set(1, foreign).is_err());
        }
        requests.into_iter().for_each(|request| request.join().unwrap());
        assert!(store.epochs.settled(epoch));
    });
}

#[test]
fn a_lookup_never_finds_the_blocks_of_another_cluster() {
    reuse_beside_requests(1, 1, 4);
}

#[test]
fn nor_do_two_lookups_of_one_shard() {
    reuse_beside_requests(1, 2, 3);
}

#[test]
fn nor_do_two_lookups_of_two_shards() {
    reuse_beside_requests(2, 2, 3);
}

/// Two passes use something until it is withdrawn; whoever withdrew it has it to itself when the next epoch has settled
/// (loom reports the race otherwise): new passes see the withdrawal, and old ones have ended.
///
/// `earlier` epochs begin before the withdrawal; beside more than two, a pass may stop the last one from beginning.
fn withdraw_beside_passes(shards: usize, passes: usize, earlier: u64, preemptions: usize) {
    struct Thing {
        epochs: Epochs,
        withdrawn: AtomicBool,
        itself: UnsafeCell<()>,
    }
    explore(preemptions, move || {
        let thing = Arc::new(Thing {
            epochs: Epochs::new(shards),
            withdrawn: AtomicBool::new(false),
            itself: UnsafeCell::new(()),
        });
        let users: Vec<_> = (0..passes)
            .map(|shard| {
                let thing = Arc::clone(&thing);
                loom::thread::spawn(move || {
                    set_thread_index(shard);
                    let pass = thing.epochs.enter();
                    if !thing.withdrawn.load(Ordering::Relaxed) {
                        thing.itself.with(|_| ());
                    }
                    thing.epochs.exit(pass);
                })
            })
            .collect();
        for epoch in 1..=earlier {
            assert_eq!(thing.epochs.try_advance(), Some(epoch));
        }
        thing.withdrawn.store(true, Ordering::Relaxed);
        let epoch = thing.epochs.try_advance();
        assert!(epoch.is_some() || earlier > 2);
        if epoch.is_some_and(|epoch| thing.epochs.settled(epoch)) {
            thing.itself.with_mut(|_| ());
        }
        users.into_iter().for_each(|user| user.join().unwrap());
        assert!(thing.epochs.settled(thing.epochs.current()));
    });
}

#[test]
fn what_is_withdrawn_is_free_when_an_epoch_has_settled() {
    withdraw_beside_passes(1, 2, 0, 3);
}

#[test]
fn also_if_the_passes_are_counted_in_two_shards() {
    withdraw_beside_passes(2, 2, 0, 3);
}

/// The pass may have read its epoch in one round of the ring, and be counted in the next.
#[test]
fn also_if_a_pass_takes_as_long_to_enter_as_the_ring_is() {
    withdraw_beside_passes(1, 1, 3, 4);
}
