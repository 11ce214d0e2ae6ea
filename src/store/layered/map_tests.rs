//! Tests of the live map on one thread. What lookups see of changes on another one: `tests/loom_map/main.rs`.

use std::collections::BTreeMap;

use super::entry::{Entry, Part};
use super::map::{LEAF_ENTRIES, LiveMap};
use proptest::prelude::*;

const EMPTY: [Entry; LEAF_ENTRIES] = [Entry {
    front: absent(),
    back: absent(),
}; LEAF_ENTRIES];

const fn absent() -> Part {
    Part {
        cluster: 0,
        slot: 0,
        mask: 0,
    }
}

fn plain(cluster: u32, mask: u16) -> Entry {
    Entry {
        front: Part {
            cluster,
            slot: 0,
            mask,
        },
        back: absent(),
    }
}

fn split(front: (u32, u16), back: (u32, u16)) -> Entry {
    Entry {
        front: Part {
            cluster: front.0,
            slot: 0,
            mask: front.1,
        },
        back: Part {
            cluster: back.0,
            slot: 9,
            mask: back.1,
        },
    }
}

#[test]
fn a_leaf_is_loaded_with_its_entries() {
    let map = LiveMap::new(10);
    assert!(!map.is_loaded(1));
    assert_eq!(map.get(252), None);
    assert_eq!(map.leaf(1), None);
    let mut entries = EMPTY;
    entries[0] = plain(u32::MAX, u16::MAX);
    entries[1] = split((0, 1), (u32::MAX, 0xfffe));
    entries[251] = plain(0, 1);
    map.install(1, &entries).unwrap();
    assert!(map.is_loaded(1) && !map.is_loaded(0) && !map.is_loaded(2));
    assert_eq!(map.leaf(1), Some(entries));
    for (at, entry) in entries.into_iter().enumerate() {
        assert_eq!(map.get(252 + at as u64), Some(entry));
    }
    assert_eq!((map.get(251), map.get(504)), (None, None));
}

#[test]
fn the_largest_disk_has_a_place_for_its_last_cluster_and_lookups_beyond_find_nothing() {
    let map = LiveMap::new(0);
    let last = (1 << 30) - 1;
    map.install((last / 252) as u32, &EMPTY).unwrap();
    map.set(last, plain(7, 1)).unwrap();
    assert_eq!(map.get(last), Some(plain(7, 1)));
    assert_eq!((map.get(1 << 32), map.get(u64::MAX)), (None, None));
    assert!(!map.is_loaded(u32::MAX));
}

#[test]
fn masks_of_a_split_change_in_place_and_its_clusters_do_not() {
    let map = LiveMap::new(10);
    map.install(0, &EMPTY).unwrap();
    map.set(5, split((1, 0b0001), (2, 0b1110))).unwrap();
    for masks in [
        (0b0011, 0b1100),
        (0b0110, 0b1001),
        (0b0100, 0b0001),
        (0b0100, 0b1011),
    ] {
        map.set(5, split((1, masks.0), (2, masks.1))).unwrap();
        assert_eq!(map.get(5), Some(split((1, masks.0), (2, masks.1))));
        assert_eq!(map.splits_in_use(), 1);
    }
    map.set(5, split((3, 1), (2, 2))).unwrap();
    map.set(5, split((3, 1), (4, 2))).unwrap();
    let mut other_slot = split((3, 1), (4, 2));
    other_slot.back.slot = 8;
    map.set(5, other_slot).unwrap();
    assert_eq!(map.get(5), Some(other_slot));
    assert_eq!(map.splits_in_use(), 4);
    assert_eq!(map.take_retired().len(), 3);
    map.set(5, plain(3, 3)).unwrap();
    assert_eq!(map.take_retired().len(), 1);
    assert!(map.take_retired().is_empty());
}

#[test]
fn at_the_limit_only_new_splits_are_refused_until_retired_ones_are_released() {
    let map = LiveMap::new(2);
    map.install(0, &EMPTY).unwrap();
    map.set(0, split((1, 1), (2, 2))).unwrap();
    map.set(1, split((3, 1), (4, 2))).unwrap();
    assert!(map.set(2, split((5, 1), (6, 2))).is_err());
    assert_eq!(map.get(2), Some(Entry::default()));
    assert!(map.set(0, split((1, 1), (7, 2))).is_err());
    assert_eq!(map.get(0), Some(split((1, 1), (2, 2))));
    map.set(0, split((1, 3), (2, 4))).unwrap();
    map.set(2, plain(5, 1)).unwrap();

    map.set(0, plain(1, 7)).unwrap();
    assert!(
        map.set(2, split((5, 1), (6, 2))).is_err(),
        "lookups may read the retired one"
    );
    let retired = map.take_retired();
    assert!(map.set(2, split((5, 1), (6, 2))).is_err());
    map.release(retired);
    map.set(2, split((5, 1), (6, 2))).unwrap();
    assert_eq!(map.get(2), Some(split((5, 1), (6, 2))));
    assert_eq!(map.get(1), Some(split((3, 1), (4, 2))));
}

#[test]
fn a_leaf_with_too_many_splits_is_not_loaded_and_takes_none() {
    let map = LiveMap::new(2);
    let mut entries = EMPTY;
    entries[3..6].fill(split((1, 1), (2, 2)));
    assert!(map.install(0, &entries).is_err());
    assert!(!map.is_loaded(0));
    assert_eq!(map.splits_in_use(), 0);
    entries[4] = plain(1, 1);
    map.install(0, &entries).unwrap();
    assert_eq!(map.leaf(0), Some(entries));
}

#[test]
fn more_splits_than_a_chunk_has() {
    let map = LiveMap::new(20_000);
    for leaf in 0..79 {
        map.install(leaf, &EMPTY).unwrap();
    }
    let entry = |cluster: u64| split((cluster as u32, 1), (cluster as u32 + 1, 2));
    for cluster in 0..19_900 {
        map.set(cluster, entry(cluster)).unwrap();
    }
    for cluster in 0..19_900 {
        assert_eq!(map.get(cluster), Some(entry(cluster)));
    }
    assert_eq!(map.splits_in_use(), 19_900);
}

#[test]
#[should_panic(expected = "loaded already")]
fn a_leaf_is_loaded_once() {
    let map = LiveMap::new(0);
    map.install(0, &EMPTY).unwrap();
    let _ = map.install(0, &EMPTY);
}

/// An entry that obeys the rules, of few clusters so that equal ones meet.
fn any_entry() -> impl Strategy<Value = Entry> {
    let part = |mask| (0..3u32, 0..2u8).prop_map(move |(cluster, slot)| Part { cluster, slot, mask });
    (0..8u16, 0..8u16)
        .prop_flat_map(move |(front, back)| (part(front), part(back & !front)))
        .prop_map(|(front, back)| match (front.mask, back.mask) {
            (0, 0) => Entry::default(),
            (0, _) => Entry {
                front: back,
                back: absent(),
            },
            (_, 0) => Entry {
                front,
                back: absent(),
            },
            _ => Entry { front, back },
        })
}

#[derive(Clone, Debug)]
enum Step {
    Set(u64, Entry),
    Take,
    Release,
}

proptest! {
    #[test]
    fn the_map_is_as_the_model(steps in prop::collection::vec(
        prop_oneof![
            8 => (250u64..254, any_entry()).prop_map(|(cluster, entry)| Step::Set(cluster, entry)),
            1 => Just(Step::Take),
            1 => Just(Step::Release),
        ],
        0..300,
    )) {
        let map = LiveMap::new(8);
        map.install(0, &EMPTY).unwrap();
        map.install(1, &EMPTY).unwrap();
        let mut model: BTreeMap<u64, Entry> = (250..254).map(|cluster| (cluster, Entry::default())).collect();
        let mut taken = Vec::new();
        for step in steps {
            match step {
                Step::Set(cluster, entry) => match map.set(cluster, entry) {
                    Ok(()) => { model.insert(cluster, entry); }
                    Err(_) => prop_assert_eq!(map.splits_in_use(), 8),
                },
                Step::Take => taken.extend(map.take_retired()),
                Step::Release => map.release(std::mem::take(&mut taken)),
            }
            for (cluster, entry) in &model {
                prop_assert_eq!(map.get(*cluster), Some(*entry));
            }
        }
        for (leaf, clusters) in [(0u32, 250..252u64), (1, 252..254)] {
            let entries = map.leaf(leaf).unwrap();
            for cluster in clusters {
                prop_assert_eq!(entries[(cluster % 252) as usize], model[&cluster]);
            }
        }
        taken.extend(map.take_retired());
        map.release(taken);
        let split = model.values().filter(|entry| entry.back.mask != 0).count();
        prop_assert_eq!(map.splits_in_use(), split);
    }
}
