//! Tests of the growing tables.

use super::entry::Part;
use super::table::{Births, Directory, is_own};

#[test]
fn a_directory_has_what_was_added_once() {
    let directory = Directory::<u64>::new(3000);
    assert_eq!(directory.get(2999), None);
    for (index, value) in [(0, 10), (1023, 11), (1024, 12), (2999, 13)] {
        assert!(directory.insert(index, Box::new(value)));
        assert_eq!(directory.get(index), Some(&value));
        assert!(!directory.insert(index, Box::new(99)));
        assert_eq!(directory.get(index), Some(&value));
    }
    assert_eq!(directory.get(1), None);
    assert_eq!(directory.get(usize::MAX), None);
}

#[test]
fn values_do_not_move_when_a_directory_grows() {
    let directory = Directory::<u64>::new(1 << 22);
    assert!(directory.insert(7, Box::new(7)));
    let before = std::ptr::from_ref(directory.get(7).unwrap());
    for index in (0..1 << 22).step_by(100_003).skip(1) {
        assert!(directory.insert(index, Box::new(0)));
    }
    assert_eq!(std::ptr::from_ref(directory.get(7).unwrap()), before);
}

#[test]
fn births_are_kept_for_every_cluster_number() {
    let births = Births::new();
    let clusters = [0, 1, 1023, 1024, 1 << 20, u32::MAX - 1, u32::MAX];
    for (cluster, birth) in clusters.into_iter().zip(1..) {
        assert_eq!(births.get(cluster), 0);
        births.set(cluster, birth);
    }
    for (cluster, birth) in clusters.into_iter().zip(1..) {
        assert_eq!(births.get(cluster), birth);
    }
    assert_eq!(births.get(2), 0);
    births.set(1, 0);
    births.set(1 << 30, 0);
    assert_eq!((births.get(0), births.get(1), births.get(1 << 30)), (1, 0, 0));
    births.set(1, u32::MAX);
    assert_eq!(births.get(1), u32::MAX);
}

#[test]
fn own_is_what_was_born_here_after_the_newest_snapshot() {
    let births = Births::new();
    births.set(5, 3);
    let part = Part {
        cluster: 5,
        slot: 0,
        mask: 1,
    };
    assert!(is_own(&births, 2, part));
    assert!(!is_own(&births, 3, part));
    assert!(!is_own(&births, 4, part));
    assert!(!is_own(&births, 2, Part { slot: 1, ..part }), "a base file's");
    assert!(!is_own(&births, 0, Part { cluster: 6, ..part }), "never born");
    assert!(!is_own(&births, 0, Part::default()), "absent");
}
