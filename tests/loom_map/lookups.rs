//! A lookup beside every kind of change: for each block it finds the place that the last change before it or one
//! during it gave.

use loom::sync::Arc;

use super::{Entry, empty_map, explore, place, plain, split};

const CLUSTER: u64 = 3;

/// Makes the changes `before`, then starts a lookup on another thread while it makes the changes `during`.
fn lookup_beside(before: &[Entry], during: &[Entry]) {
    let (before, during) = (before.to_vec(), during.to_vec());
    explore(3, move || {
        let map = Arc::new(empty_map(before.len() + during.len()));
        for entry in &before {
            map.set(CLUSTER, *entry).unwrap();
        }
        let reader = {
            let map = Arc::clone(&map);
            loom::thread::spawn(move || map.get(CLUSTER).unwrap())
        };
        for entry in &during {
            map.set(CLUSTER, *entry).unwrap();
        }
        let seen = reader.join().unwrap();
        let possible: Vec<Entry> = before.last().into_iter().chain(&during).copied().collect();
        for block in 0..16 {
            assert!(
                possible
                    .iter()
                    .any(|entry| place(*entry, block) == place(seen, block)),
                "block {block} of {seen:?} among {possible:?}"
            );
        }
        assert_eq!(map.get(CLUSTER), possible.last().copied());
    });
}

/// Entries of every form, of clusters that differ or do not.
fn forms() -> [Entry; 8] {
    [
        Entry::default(),
        plain(1, 0b01),
        plain(1, 0b11),
        plain(2, 0b11),
        split((1, 0b01), (2, 0b10)),
        split((2, 0b01), (1, 0b10)),
        split((3, 0b01), (2, 0b10)),
        split((1, 0b10), (3, 0b01)),
    ]
}

#[test]
fn from_every_form_of_an_entry_to_every_other_and_a_third() {
    for first in forms() {
        for second in forms() {
            for third in forms() {
                lookup_beside(&[first], &[second, third]);
            }
        }
    }
}

/// Splits of the same two clusters, whose blocks 0 and 1 stay in front and back, and whose blocks 2 and 3 are in all
/// combinations of front, back and nowhere.
fn masks() -> Vec<Entry> {
    let blocks = |at: u16| [(0, 0), (1 << at, 0), (0, 1 << at)];
    let combine = |(front, back): (u16, u16)| {
        blocks(3).map(move |(more_front, more_back)| {
            split((1, 0b01 | front | more_front), (2, 0b10 | back | more_back))
        })
    };
    blocks(2).into_iter().flat_map(combine).collect()
}

#[test]
fn between_all_masks_of_a_split() {
    for earlier in masks() {
        for first in masks() {
            for second in masks() {
                lookup_beside(&[earlier, first], &[second]);
            }
        }
    }
}

/// A block that moves again and again during one lookup.
#[test]
fn through_several_masks_of_a_split() {
    let states = [
        split((1, 0b001), (2, 0b010)),
        split((1, 0b101), (2, 0b010)),
        split((1, 0b001), (2, 0b110)),
    ];
    for start in states {
        for first in states {
            for second in states {
                for third in states {
                    lookup_beside(&[start], &[first, second, third]);
                }
            }
        }
    }
}

/// The block is discarded, the split folded into one cluster, and split again: the lookup may still read the first.
#[test]
fn from_split_to_plain_to_split() {
    let first = split((1, 0b001), (2, 0b110));
    lookup_beside(
        &[first],
        &[
            split((1, 0b011), (2, 0b100)),
            plain(1, 0b011),
            split((4, 0b001), (1, 0b010)),
        ],
    );
    lookup_beside(&[first], &[plain(1, 0b111), Entry::default(), first]);
}

/// A leaf that is loaded beside the lookup is found as a whole or not at all.
#[test]
fn beside_the_loading_of_its_leaf() {
    explore(3, || {
        let map = Arc::new(super::LiveMap::new(1));
        let mut entries = [Entry::default(); super::LEAF_ENTRIES];
        entries[CLUSTER as usize] = split((1, 0b01), (2, 0b10));
        let reader = {
            let map = Arc::clone(&map);
            loom::thread::spawn(move || map.get(CLUSTER))
        };
        map.install(0, &entries).unwrap();
        let seen = reader.join().unwrap();
        assert!(
            seen.is_none() || seen == Some(entries[CLUSTER as usize]),
            "{seen:?}"
        );
    });
}
