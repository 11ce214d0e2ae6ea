//! What was asked of a store and answered, and hence what may be found in it after a crash.

use std::collections::BTreeMap;
use std::ops::Range;

use sealblk::store::layered::{ObjectId, Operation};

use crate::crash::Crash;
use crate::medium::Image;
use crate::sectors::{UNREAD, Value};

/// A moment: in the order of what is asked and answered, and among the medium's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    pub(crate) clock: u64,
    pub(crate) position: usize,
}

/// Something that was asked for, and when it was answered.
#[derive(Clone, Debug)]
pub(crate) struct Asked<T> {
    pub(crate) what: T,
    pub(crate) submitted: Stamp,
    pub(crate) answered: Option<Stamp>,
    /// The answer was that it failed: some of it may have been done.
    pub(crate) failed: bool,
}

/// A write, or something that has the effect of one.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) value: Value,
    pub(crate) sectors: Range<u64>,
    /// Which of the disk's lives it belongs to: each rollback begins another.
    era: usize,
}

/// What a disk or a snapshot holds: a value for each sector, zeros behind.
pub(crate) type Content = Vec<Value>;

/// A clone that was made meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Clone {
    pub(crate) snapshot: ObjectId,
    pub(crate) image: Image,
    pub(crate) made: Stamp,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    clock: u64,
    /// Numbers up to this one have been used, for writes or in ids.
    pub(crate) numbers: u32,
    /// What was there before, and then what each rollback found.
    eras: Vec<Content>,
    /// Snapshots that were there before.
    before: BTreeMap<ObjectId, Content>,
    /// What those held that were made since, once that is known.
    contents: BTreeMap<ObjectId, Content>,
    pub(crate) sectors: u64,
    pub(crate) writes: Vec<Asked<Write>>,
    pub(crate) flushes: Vec<Asked<()>>,
    pub(crate) operations: Vec<Asked<(ObjectId, Operation)>>,
    pub(crate) clones: Vec<Clone>,
}

/// What operations have made of the disk.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) sectors: u64,
    pub(crate) era: usize,
    /// Visible snapshots; with the era and the operation that made them, if they were not there before.
    pub(crate) snapshots: BTreeMap<ObjectId, Option<(usize, usize)>>,
    pub(crate) pins: Vec<(ObjectId, ObjectId)>,
}

impl History {
    /// Of a store that holds this.
    pub(crate) fn new(
        numbers: u32,
        sectors: u64,
        live: Content,
        snapshots: BTreeMap<ObjectId, Content>,
    ) -> Self {
        History {
            numbers,
            eras: vec![live],
            before: snapshots,
            sectors,
            ..History::default()
        }
    }

    pub(crate) fn stamp(&mut self, position: usize) -> Stamp {
        self.clock += 1;
        let clock = self.clock;
        Stamp { clock, position }
    }

    pub(crate) fn write_begins(&mut self, value: Value, sectors: Range<u64>, position: usize) -> usize {
        let era = self.eras.len() - 1;
        let submitted = self.stamp(position);
        self.writes.push(Asked {
            what: Write { value, sectors, era },
            submitted,
            answered: None,
            failed: false,
        });
        self.writes.len() - 1
    }

    pub(crate) fn write_ended(&mut self, number: usize, position: usize, failed: bool) {
        self.writes[number].answered = Some(self.stamp(position));
        self.writes[number].failed = failed;
    }

    pub(crate) fn operation_begins(&mut self, id: ObjectId, what: Operation, position: usize) -> usize {
        let submitted = self.stamp(position);
        if let Operation::Rollback(snapshot) = what {
            self.eras.push(self.content(snapshot).clone());
        } else if what == Operation::Reinitialise {
            self.eras.push(Content::new());
        }
        self.operations.push(Asked {
            what: (id, what),
            submitted,
            answered: None,
            failed: false,
        });
        self.operations.len() - 1
    }

    pub(crate) fn operation_ended(&mut self, number: usize, position: usize) {
        self.operations[number].answered = Some(self.stamp(position));
    }

    /// The last operation was refused, and has had no effect.
    pub(crate) fn operation_refused(&mut self) {
        let refused = self.operations.pop();
        if let Some(Operation::Rollback(_) | Operation::Reinitialise) = refused.map(|asked| asked.what.1) {
            self.eras.pop();
        }
    }

    /// Whether it is known what a snapshot holds.
    pub(crate) fn knows(&self, snapshot: ObjectId) -> bool {
        self.before.contains_key(&snapshot) || self.contents.contains_key(&snapshot)
    }

    /// What a snapshot holds, if that is known.
    pub(crate) fn content(&self, snapshot: ObjectId) -> &Content {
        self.before
            .get(&snapshot)
            .unwrap_or_else(|| &self.contents[&snapshot])
    }

    pub(crate) fn set_content(&mut self, snapshot: ObjectId, content: Content) {
        self.contents.insert(snapshot, content);
    }

    /// With the first `count` operations.
    pub(crate) fn expected(&self, count: usize) -> Expected {
        let mut expected = Expected {
            sectors: self.sectors,
            era: 0,
            snapshots: self.before.keys().map(|id| (*id, None)).collect(),
            pins: Vec::new(),
        };
        for (number, asked) in self.operations[..count].iter().enumerate() {
            match asked.what.1 {
                Operation::Snapshot(id) => {
                    expected.snapshots.insert(id, Some((expected.era, number)));
                }
                Operation::Delete(id) => {
                    expected.snapshots.remove(&id);
                }
                Operation::Rollback(_) | Operation::Reinitialise => expected.era += 1,
                Operation::Resize(sectors) => expected.sectors = sectors,
                Operation::Pin { id, disk } => expected.pins.push((id, disk)),
                Operation::Unpin { id, disk } => expected.pins.retain(|pin| *pin != (id, disk)),
            }
        }
        expected
    }

    /// Whether the live disk may hold this when it was cut off at `position` of the medium's events.
    pub(crate) fn check_live(&self, expected: &Expected, found: &[Value], crash: Crash, position: usize) {
        let durable = self.durable_before(position);
        let sure = |write: &Asked<Write>| {
            !write.failed
                && write.answered.is_some_and(|answered| match crash {
                    Crash::Kill => answered.position <= position,
                    Crash::PowerCut => answered.clock < durable,
                })
        };
        self.check(expected.era, found, "the disk", &sure, &|write| {
            write.submitted.position <= position
        });
    }

    /// Whether a snapshot may hold this, when the disk was cut off at `position`.
    pub(crate) fn check_snapshot(
        &self,
        id: ObjectId,
        made: Option<(usize, usize)>,
        found: &[Value],
        position: usize,
    ) {
        let what = format!("snapshot {id:?}");
        let Some((era, operation)) = made else {
            return same(self.content(id), found, &what);
        };
        let taken = &self.operations[operation];
        // Until it is answered, what is in flight may get into it or not.
        let answered = taken.answered.is_some_and(|stamp| stamp.position <= position);
        if answered && let Some(content) = self.contents.get(&id) {
            return same(content, found, &what);
        }
        let visible = self.writes.iter().filter(|write| {
            let what = &write.what;
            what.value != 0 && what.era == era && {
                // The disk may not have grown so far yet.
                let within = |sector: u64| (sector as usize).min(found.len());
                found[within(what.sectors.start)..within(what.sectors.end)].contains(&what.value)
            }
        });
        // Whatever was answered before something that it holds was asked for.
        let until = visible.map(|write| write.submitted.clock).max().unwrap_or(0);
        let until = until.max(taken.submitted.clock);
        let sure = |write: &Asked<Write>| {
            !write.failed && write.answered.is_some_and(|answered| answered.clock < until)
        };
        self.check(era, found, &what, &sure, &|write| {
            taken
                .answered
                .is_none_or(|answered| write.submitted.clock < answered.clock)
        });
    }

    /// The clock at the submission of the last flush that was answered.
    fn durable_before(&self, position: usize) -> u64 {
        let answered = |answered: Option<Stamp>| answered.is_some_and(|stamp| stamp.position <= position);
        let flushes = self.flushes.iter().map(|flush| (flush.submitted, flush.answered));
        let operations = self.operations.iter().map(|made| (made.submitted, made.answered));
        flushes
            .chain(operations)
            .filter(|(_, end)| answered(*end))
            .map(|(submitted, _)| submitted.clock)
            .max()
            .unwrap_or(0)
    }

    fn check(
        &self,
        era: usize,
        found: &[Value],
        what: &str,
        sure: &dyn Fn(&Asked<Write>) -> bool,
        possible: &dyn Fn(&Asked<Write>) -> bool,
    ) {
        let writes: Vec<_> = self.writes.iter().filter(|write| write.what.era == era).collect();
        let base = &self.eras[era];
        for (sector, value) in found.iter().enumerate().filter(|(_, value)| **value != UNREAD) {
            let here = |write: &&&Asked<Write>| write.what.sectors.contains(&(sector as u64));
            let superseded = |earlier: Option<Stamp>| {
                let later = |write: &&Asked<Write>| earlier.is_none_or(|stamp| write.submitted > stamp);
                writes
                    .iter()
                    .filter(here)
                    .any(|write| sure(write) && later(write))
            };
            let from_base = base.get(sector).copied().unwrap_or(0) == *value && !superseded(None);
            let from_write = || {
                writes.iter().filter(here).any(|write| {
                    write.what.value == *value
                        && possible(write)
                        && !write.answered.is_some_and(|answered| superseded(Some(answered)))
                })
            };
            assert!(
                from_base || from_write(),
                "{what}: sector {sector} holds {value:#x}; it was {:x?}, and then {:x?}",
                base.get(sector),
                writes.iter().filter(here).collect::<Vec<_>>(),
            );
        }
    }
}

fn same(content: &Content, found: &[Value], what: &str) {
    for (sector, value) in found.iter().enumerate() {
        let expected = content.get(sector).copied().unwrap_or(0);
        assert!(
            *value == expected || *value == UNREAD,
            "{what}: sector {sector} holds {value:#x} instead of {expected:#x}"
        );
    }
}
