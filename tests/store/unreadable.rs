//! Pages that the medium does not give (EIO): who needs such a page suffers from it, and nobody else does.

use sealblk::store::layered::{LayeredError, ObjectId, Operation, SuperblockError};

use crate::medium::{Event, Image, Limits, PAGE, Recording};
use crate::script::{Run, Step};
use crate::worker::{Disk, Part, boot, create};

const CLUSTER: u64 = 128;
/// Sectors that a leaf of the map describes.
const LEAF: u64 = 252 * CLUSTER;
/// Pages of the superblock's copies, and of the mark of the version.
const COPIES: [u64; 2] = [0, 256];
const MARK: u64 = 1;
/// Pages of the journal.
const JOURNAL: std::ops::Range<u64> = 16..32;
/// Kinds of pages.
const MAP: u32 = 1;
const MAP_INDEX: u32 = 2;
const SPACE: [u32; 2] = [3, 4];

/// A store with a snapshot that shares nothing of its map with the disk.
fn run() -> Run {
    let mut run = Run::new(5 * CLUSTER);
    run.steps(&[
        Step::Write(0, 300),
        Step::Snapshot,
        Step::Write(8, 20),
        Step::Checkpoint,
        Step::Write(400, 30),
        Step::Checkpoint,
        Step::Write(500, 30),
        Step::Flush,
        Step::Checkpoint,
    ]);
    run
}

fn with(image: &Image, unreadable: impl IntoIterator<Item = u64>) -> Recording {
    let medium = Recording::new(image.clone(), Limits::NONE);
    medium.set_unreadable(unreadable);
    medium
}

fn open(medium: &Recording) -> Result<Disk, LayeredError> {
    Disk::open(medium.clone(), Vec::new(), boot(1))
}

fn refused(medium: &Recording) -> LayeredError {
    open(medium).map(|_| ()).unwrap_err()
}

fn id(number: u8) -> ObjectId {
    ObjectId([number; 16])
}

fn operate(disk: &Disk, operation: Operation) {
    disk.store.operate(ObjectId::NONE, operation).unwrap();
}

/// Pages of metadata, old ones too: number, kind, position and generation.
fn pages(image: &Image) -> Vec<(u64, u32, u64, u32)> {
    let mut found = Vec::new();
    let mut bytes = [0; PAGE];
    for page in 0.. {
        if !image.read(page * PAGE as u64, &mut bytes) {
            return found;
        }
        let short = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        if bytes.starts_with(b"SBpg") && long(32) == page {
            found.push((page, short(8), long(40), short(12)));
        }
    }
    found
}

/// Each page of the file, one after another. A deletion that cannot go on is taken up when the page can be read again.
#[test]
fn a_page_takes_nothing_else_with_it() {
    let run = run();
    let image = run.medium.image();
    let (live, snapshot) = (run.disk.read_all().unwrap(), run.visible()[0]);
    let last = pages(&image).last().unwrap().0;
    let (mut given_up, mut refused_at) = (0, Vec::new());
    for page in 0..last + 64 {
        let medium = with(&image, [page]);
        let disk = match open(&medium) {
            Ok(disk) => disk,
            Err(error) => {
                assert!(!matches!(error, LayeredError::Io(_)), "page {page}: {error}");
                assert!(error.to_string().contains(&format!("page {page}")), "{error}");
                refused_at.push(page);
                continue;
            }
        };
        operate(&disk, Operation::Delete(snapshot));
        must_go_on(&disk, &live, page);
        given_up += usize::from(
            !disk
                .store
                .report()
                .is_ok_and(|report| report.snapshots.is_empty()),
        );
        drop(disk);
        let disk = open(&medium).unwrap();
        must_go_on(&disk, &live, page);
        drop(disk);
        medium.set_unreadable([]);
        let disk = open(&medium).unwrap();
        disk.store.work().unwrap();
        assert!(disk.store.report().unwrap().snapshots.is_empty(), "page {page}");
        assert!(disk.read_all().unwrap() == live, "page {page}");
        let found = disk.store.check_all(false).unwrap();
        assert_eq!(found.double_used, 0, "page {page}: {found:?}");
    }
    // The snapshot's map has four pages, and the leaf of the disk's is looked at, too.
    assert_eq!(given_up, 5);
    // The page of the journal in use, the index of the disk's map, the space table, and the page of the snapshots.
    assert_eq!(refused_at.len(), 1 + 3 + 4 + 1, "{refused_at:?}");
}

/// Does everything that can be done. Whatever can be read is what was there.
fn must_go_on(disk: &Disk, live: &[u32], page: u64) {
    disk.store.work().unwrap();
    for (cluster, expected) in live.chunks(CLUSTER as usize).enumerate() {
        let at = cluster as u64 * CLUSTER;
        if let Ok(found) = disk.read(at, expected.len() as u64) {
            assert!(found == expected, "page {page}");
            // The same again.
            disk.write(at, 1, expected[0]).unwrap();
        }
    }
    disk.flush().unwrap();
    disk.store.checkpoint_now().unwrap();
    for repair in [false, true] {
        let found = disk.store.check_all(repair).unwrap();
        assert_eq!(found.double_used, 0, "page {page}: {found:?}");
    }
    assert!(!disk.store.has_failed(), "page {page}");
}

#[test]
fn either_copy_of_the_superblock_is_enough() {
    let run = run();
    let image = run.medium.image();
    let live = run.disk.read_all().unwrap();
    for page in [COPIES[0], COPIES[1], MARK] {
        for maintain in [false, true] {
            let medium = with(&image, [page]);
            let disk = if maintain {
                Disk::maintain(medium.clone(), boot(0)).unwrap()
            } else {
                open(&medium).unwrap()
            };
            assert!(disk.read_all().unwrap() == live);
            let found = disk.store.check_all(false).unwrap();
            assert_eq!((found.bad_pages, found.repaired), (1, 1), "{found:?}");
            assert!(found.findings[0].contains(&format!("page {page} ")), "{found:?}");
            // It was written anew.
            assert!(disk.store.check_all(false).unwrap().is_clean());
            // While the store is open.
            medium.set_unreadable([page]);
            let found = disk.store.check_all(false).unwrap();
            assert_eq!((found.bad_pages, found.repaired), (1, 1), "{found:?}");
            assert!(disk.store.check_all(false).unwrap().is_clean());
        }
    }
    let error = refused(&with(&image, COPIES));
    let unreadable = matches!(
        error,
        LayeredError::Superblock(SuperblockError::Unreadable(libc::EIO))
    );
    assert!(unreadable, "{error}");
}

/// Nor does a clone need both of its base.
#[test]
fn either_copy_of_a_bases_superblock_is_enough() {
    let mut run = run();
    let snapshot = run.visible()[0];
    let content = run.history.content(snapshot).clone();
    run.step(Step::Clone(0));
    for page in COPIES {
        let base = with(&run.medium.image(), [page]);
        let medium = Recording::new(Image::default(), Limits::NONE);
        create(&medium, run.sectors(), 2, Some((&base, snapshot))).unwrap();
        let clone = Disk::open(medium, vec![base], boot(1)).unwrap();
        assert!(clone.read_all().unwrap() == content);
    }
}

#[test]
fn a_part_of_a_bases_map_fails_requests_for_it_alone() {
    let mut run = Run::new(2 * LEAF);
    run.steps(&[Step::Write(0, 8), Step::Write(LEAF, 8)]);
    operate(&run.disk, Operation::Snapshot(id(b's')));
    run.step(Step::Checkpoint);
    let pin = Operation::Pin {
        id: id(b's'),
        disk: id(b'c'),
    };
    operate(&run.disk, pin);
    let medium = Recording::new(Image::default(), Limits::NONE);
    create(&medium, 2 * LEAF, 2, Some((&run.medium, id(b's')))).unwrap();
    let leaves = pages(&run.medium.image());
    let first = leaves
        .iter()
        .filter(|(_, kind, position, _)| *kind == MAP && *position == 0);
    run.medium.set_unreadable(first.map(|page| page.0));
    let clone = Disk::open(medium, vec![run.medium.clone()], boot(0)).unwrap();
    let error = clone.read(0, 8).unwrap_err().to_string();
    assert!(error.contains("cannot be read"), "{error}");
    assert!(clone.write(0, 8, 5).is_err());
    assert_eq!(clone.read(LEAF, 8).unwrap(), [2; 8]);
    operate(&clone, Operation::Snapshot(id(b't')));
    clone.write(LEAF, 8, 6).unwrap();
    operate(&clone, Operation::Delete(id(b't')));
    clone.store.work().unwrap();
    clone.flush().unwrap();
    assert_eq!(clone.read(LEAF, 8).unwrap(), [6; 8]);
    assert!(!clone.store.has_failed());
}

#[test]
fn a_page_of_the_journal_that_is_not_in_use_is_written_anew() {
    let run = run();
    let image = run.medium.image();
    let live = run.disk.read_all().unwrap();
    for page in JOURNAL.skip(1) {
        for number in [0, 1] {
            let medium = with(&image, [page]);
            let disk = Disk::open(medium.clone(), Vec::new(), boot(number)).unwrap();
            assert!(disk.read_all().unwrap() == live);
            let found = disk.store.check_all(false).unwrap();
            assert_eq!((found.bad_pages, found.repaired), (1, 1), "{found:?}");
            // Once round.
            for round in 0..600 {
                disk.write(16 * (round % 8), 8, 7).unwrap();
                disk.discard(16 * (round % 8), 16).unwrap();
                disk.store.step().unwrap();
            }
            assert!(!disk.store.has_failed());
            drop(disk);
            open(&medium).unwrap();
        }
    }
}

/// Even where a damaged page could not be told from one that was never written: who is told that there may be something
/// must not be told that there is nothing.
#[test]
fn a_page_of_the_journal_that_may_be_in_use_is_damage() {
    let mut run = run();
    for flush in [true, false] {
        for number in [0, 1] {
            let image = run.medium.image();
            let medium = with(&image, [JOURNAL.start]);
            let error = Disk::open(medium.clone(), Vec::new(), boot(number))
                .map(|_| ())
                .unwrap_err();
            assert!(matches!(error, LayeredError::Journal(_)), "{error}");
            assert!(error.to_string().contains("page 16,"), "{error}");
            assert!(Disk::maintain(medium.clone(), boot(number)).is_err());
            // Nothing has changed.
            assert_eq!(medium.events().len(), 0);
        }
        if flush {
            run.step(Step::Write(600, 8));
        }
    }
}

#[test]
fn the_space_table_is_derived() {
    let run = run();
    let image = run.medium.image();
    let live = run.disk.read_all().unwrap();
    let mut rebuilt = 0;
    for (page, kind, ..) in pages(&image) {
        let medium = with(&image, [page]);
        if !SPACE.contains(&kind) || open(&medium).is_ok() {
            continue;
        }
        let error = refused(&medium);
        assert!(matches!(error, LayeredError::Damage(_)), "{error}");
        let disk = Disk::maintain(medium.clone(), boot(1)).unwrap();
        assert_eq!(disk.store.suspended().unwrap().to_string(), error.to_string());
        let repaired = disk.store.check_all(true).unwrap();
        assert_eq!((repaired.bad_pages, repaired.repaired), (1, 1), "{repaired:?}");
        assert!(disk.store.check_all(false).unwrap().is_clean());
        drop(disk);
        let disk = open(&medium).unwrap();
        assert!(disk.read_all().unwrap() == live);
        rebuilt += 1;
    }
    assert_eq!(rebuilt, 4, "the leaf and three index pages");
}

/// A deletion that had begun and cannot go on held up all others, so that their space did not come back either.
#[test]
fn a_deletion_that_cannot_go_on_holds_up_its_neighbours_alone() {
    // More than a step of a deletion does.
    let leaves = 20;
    let mut run = Run::new(leaves * LEAF);
    let names = [1, 2, 3, 4].map(id);
    for name in names {
        for leaf in 0..leaves {
            run.disk.write(leaf * LEAF, 8, 9).unwrap();
        }
        operate(&run.disk, Operation::Snapshot(name));
        run.disk.store.work().unwrap();
    }
    let disk = &run.disk;
    disk.write(0, 8, 10).unwrap();
    disk.store.checkpoint_now().unwrap();
    let left = |disk: &Disk| -> Vec<ObjectId> {
        let report = disk.store.report().unwrap();
        report.snapshots.iter().map(|snapshot| snapshot.id).collect()
    };
    operate(disk, Operation::Delete(names[0]));
    disk.store.step().unwrap();
    let image = run.medium.image();
    let leaf = pages(&image)
        .into_iter()
        .filter(|(_, kind, position, _)| *kind == MAP && *position == 18)
        .min_by_key(|(.., generation)| *generation);
    let leaf = leaf.unwrap().0;
    run.medium.set_unreadable([leaf]);
    disk.store.work().unwrap();
    operate(disk, Operation::Delete(names[1]));
    operate(disk, Operation::Delete(names[3]));
    disk.store.work().unwrap();
    assert!(!disk.store.has_failed());
    run.medium.set_unreadable([]);
    assert_eq!(left(disk), names[..3]);
    let again = open(&run.medium).unwrap();
    again.store.work().unwrap();
    assert_eq!(left(&again), [names[2]]);
    assert!(again.store.check_all(false).unwrap().is_clean());
    assert_eq!(again.read(18 * LEAF, 8).unwrap(), [9; 8]);
    run.step(Step::Background);
}

/// A deleted snapshot that has nothing any more, and cannot be taken out of the tree before a write in flight has ended
/// that copies from what was its.
fn with_one_that_waits() -> (Run, Part) {
    let mut run = Run::new(4 * CLUSTER);
    run.steps(&[Step::Write(0, 8), Step::Snapshot, Step::Checkpoint]);
    let snapshot = run.visible()[0];
    let part = run.disk.try_begin(1, 2, 5).unwrap().unwrap();
    operate(&run.disk, Operation::Delete(snapshot));
    for _ in 0..8 {
        run.disk.store.step().unwrap();
    }
    (run, part)
}

fn end(disk: &Disk, part: Part) {
    let part = disk.put(part).unwrap();
    disk.finish(part).unwrap();
    disk.store.work().unwrap();
    assert_eq!(disk.read(0, 4).unwrap(), [1, 5, 5, 1]);
}

/// It was the reason for one checkpoint after another.
#[test]
fn a_snapshot_that_must_wait_does_not_cause_checkpoints() {
    let (run, part) = with_one_that_waits();
    let before = run.position();
    for _ in 0..8 {
        run.disk.store.step().unwrap();
    }
    let events = run.medium.events();
    let syncs = events[before..]
        .iter()
        .filter(|event| matches!(event, Event::Sync));
    assert_eq!(syncs.count(), 0);
    assert_eq!(run.disk.store.report().unwrap().snapshots.len(), 1);
    end(&run.disk, part);
    assert!(run.disk.store.report().unwrap().snapshots.is_empty());
}

#[test]
fn a_snapshot_whose_map_is_lost_when_it_is_taken_out_stays() {
    let (run, part) = with_one_that_waits();
    let indexes = pages(&run.medium.image());
    let indexes = indexes.into_iter().filter(|(_, kind, ..)| *kind == MAP_INDEX);
    run.medium.set_unreadable(indexes.map(|page| page.0));
    end(&run.disk, part);
    run.disk.flush().unwrap();
    assert!(!run.disk.store.has_failed());
    run.medium.set_unreadable([]);
    assert_eq!(run.disk.store.report().unwrap().snapshots.len(), 1);
    let again = open(&run.medium).unwrap();
    again.store.work().unwrap();
    assert!(again.store.report().unwrap().snapshots.is_empty());
    assert!(again.store.check_all(false).unwrap().is_clean());
}
