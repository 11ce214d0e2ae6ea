//! Looks whether a store holds what it may after a crash, and whether it can be worked with.

use std::collections::BTreeMap;

use sealblk::store::layered::{ObjectId, Operation};

use crate::crash::{Crash, Moment};
use crate::history::{Content, Expected, History};
use crate::medium::{Image, Limits, Recording};
use crate::rng::Rng;
use crate::sectors::Value;
use crate::worker::{Disk, boot};

/// Written where it is tried whether the store still works.
const TRIAL: Value = 0x7000_0000;

/// Recovers from a crash of a store with `history` at `position` of its medium's events, with another crash during
/// recovery if `again`, and looks. Returns the number of crashes.
pub(crate) fn examine(
    history: &History,
    image: Image,
    crash: Crash,
    position: usize,
    again: bool,
    rng: &mut Rng,
) -> usize {
    let boot_now = boot(u8::from(crash == Crash::PowerCut));
    let medium = Recording::new(image.clone(), Limits::NONE);
    let disk = open(&medium, boot_now);
    if !again {
        look(history, &disk, &medium, crash, position);
        return 1;
    }
    drop(disk);
    let events = medium.events();
    let at = rng.below(0..events.len() as u64 + 1) as usize;
    let moment = Moment::at(&image, &events, at);
    let (left, boot_then) = match rng.below(0..3) {
        0 => (moment.killed(), boot_now),
        1 => (moment.subset(rng.next()), boot(2)),
        _ => (moment.torn(rng), boot(2)),
    };
    let crash = if boot_then == boot_now {
        crash
    } else {
        Crash::PowerCut
    };
    let medium = Recording::new(left, Limits::NONE);
    let disk = open(&medium, boot_then);
    look(history, &disk, &medium, crash, position);
    2
}

fn open(medium: &Recording, boot: [u8; 16]) -> Disk {
    Disk::open(medium.clone(), Vec::new(), boot).expect("a store can be opened after a crash")
}

/// Looks at an open store.
pub(crate) fn look(history: &History, disk: &Disk, medium: &Recording, crash: Crash, position: usize) {
    let expected = in_effect(history, disk, position);
    assert_eq!(disk.store.sectors(), expected.sectors);
    let live = disk.read_all().expect("what was not lost can be read");
    history.check_live(&expected, &live, crash, position);
    let contents = snapshots(disk, &expected);
    for (id, content) in &contents {
        history.check_snapshot(*id, expected.snapshots[id], content, position);
    }
    for clone in history
        .clones
        .iter()
        .filter(|clone| clone.made.position <= position)
    {
        let own = Recording::new(clone.image.clone(), Limits::NONE);
        let opened = Disk::open(own, vec![medium.clone()], boot(2)).expect("a clone can be opened");
        let content = opened.read_all().unwrap();
        let made = expected.snapshots.get(&clone.snapshot).copied().flatten();
        history.check_snapshot(clone.snapshot, made, &content, position);
    }
    try_out(disk, &contents);
    // A copy of the superblock may have been torn; then it has been written anew.
    let findings = disk.store.check_all(false).unwrap();
    let sound = findings.leaked + findings.double_used == 0 && findings.bad_pages == findings.repaired;
    assert!(sound, "{findings:?}");
}

/// Which operations are in effect: those that were answered, and perhaps one that was not, and nothing in between.
fn in_effect(history: &History, disk: &Disk, position: usize) -> Expected {
    let answered = |asked: &&crate::history::Asked<(ObjectId, Operation)>| {
        asked.answered.is_some_and(|stamp| stamp.position <= position)
    };
    let count = history.operations.iter().filter(answered).count();
    let report = disk.store.report().unwrap();
    let mut pins: Vec<_> = report
        .snapshots
        .iter()
        .flat_map(|snapshot| snapshot.pins.iter().map(|disk| (snapshot.id, *disk)))
        .collect();
    pins.sort();
    let remembers = |count: usize| {
        history.operations.iter().enumerate().all(|(number, asked)| {
            let recorded = !matches!(asked.what.1, Operation::Pin { .. } | Operation::Unpin { .. });
            !recorded || disk.store.was_made(asked.what.0) == (number < count)
        })
    };
    let matches = |count: usize| {
        let mut expected = history.expected(count);
        expected.pins.sort();
        (remembers(count) && expected.pins == pins).then_some(expected)
    };
    let next = history.operations.get(count);
    let begun = next.is_some_and(|asked| asked.submitted.position <= position);
    let expected = matches(count)
        .or_else(|| if begun { matches(count + 1) } else { None })
        .unwrap_or_else(|| {
            panic!(
                "operations: {count} were answered, {begun}; {:?}",
                history.operations
            )
        });
    let visible: Vec<ObjectId> = report
        .snapshots
        .iter()
        .filter(|snapshot| !snapshot.hidden)
        .map(|snapshot| snapshot.id)
        .collect();
    let there: Vec<ObjectId> = expected.snapshots.keys().copied().collect();
    assert_eq!(visible, there);
    expected
}

/// What the visible snapshots hold, by rolling back to each.
fn snapshots(disk: &Disk, expected: &Expected) -> BTreeMap<ObjectId, Content> {
    let read = |id: &ObjectId| {
        disk.store
            .operate(ObjectId::NONE, Operation::Rollback(*id))
            .unwrap();
        (*id, disk.read_all().unwrap())
    };
    expected.snapshots.keys().map(read).collect()
}

/// Writes everywhere and lets the background do what it has to; nothing else may change by that.
fn try_out(disk: &Disk, contents: &BTreeMap<ObjectId, Content>) {
    let sectors = disk.store.sectors();
    disk.write(0, sectors, TRIAL).unwrap();
    disk.store.work().unwrap();
    disk.write(sectors / 2, sectors - sectors / 2, TRIAL + 1).unwrap();
    disk.store.work().unwrap();
    let live = disk.read_all().unwrap();
    let (first, second) = live.split_at(sectors as usize / 2);
    assert!(
        first.iter().all(|value| *value == TRIAL),
        "the disk keeps what is written"
    );
    assert!(
        second.iter().all(|value| *value == TRIAL + 1),
        "the disk keeps what is written"
    );
    for (id, content) in contents {
        disk.store
            .operate(ObjectId::NONE, Operation::Rollback(*id))
            .unwrap();
        let found = disk.read_all().unwrap();
        assert!(
            found == *content,
            "snapshot {id:?} is not what it was before the disk was written to"
        );
    }
}
