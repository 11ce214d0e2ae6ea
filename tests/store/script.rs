//! Workloads, carried out one step after another, with their history.

use std::collections::BTreeMap;
use std::ops::Range;

use sealblk::store::layered::{ObjectId, Operation};

use crate::crash::{Crash, Moment};
use crate::examine::examine;
use crate::history::{Clone, Content, History};
use crate::medium::{Image, Limits, Recording};
use crate::rng::Rng;
use crate::sectors::{UNREAD, Value};
use crate::worker::{Disk, boot, create, create_with_journal};

/// Something that a guest, an operator or the store's background does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// First sector and count.
    Write(u64, u64),
    Discard(u64, u64),
    WriteZeroes(u64, u64),
    Flush,
    Snapshot,
    /// Of the visible snapshots the one with this index, if there are so many; likewise below.
    Delete(usize),
    Rollback(usize),
    Reinitialise,
    /// By so many sectors.
    Grow(u64),
    Checkpoint,
    Clone(usize),
    Background,
    /// All that the background has to do.
    Work,
    Read,
    Check,
    Repair,
}

/// A store that steps are carried out on.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) disk: Disk,
    pub(crate) medium: Recording,
    pub(crate) start: Image,
    pub(crate) history: History,
}

impl Run {
    /// A new, empty store.
    pub(crate) fn new(sectors: u64) -> Self {
        Run::with_journal(sectors, 1)
    }

    /// Likewise, with a journal of so many clusters.
    pub(crate) fn with_journal(sectors: u64, clusters: u32) -> Self {
        let medium = Recording::new(Image::default(), Limits::NONE);
        create_with_journal(&medium, sectors, 1, None, clusters).unwrap();
        Run::of(
            medium.image(),
            History::new(0, sectors, Content::new(), BTreeMap::new()),
        )
    }

    /// A store that holds what `history` begins with.
    pub(crate) fn of(image: Image, history: History) -> Self {
        let medium = Recording::new(image.clone(), Limits::NONE);
        let disk = Disk::open(medium.clone(), Vec::new(), boot(0)).unwrap();
        Run {
            disk,
            medium,
            start: image,
            history,
        }
    }

    /// What another run can begin with: as if this one's process had been killed.
    pub(crate) fn end(self) -> (Image, History) {
        let expected = self.history.expected(self.history.operations.len());
        let contents = expected
            .snapshots
            .keys()
            .map(|id| (*id, self.history.content(*id).clone()));
        let live = self.disk.read_all().unwrap();
        let history = History::new(self.history.numbers, expected.sectors, live, contents.collect());
        (self.medium.image(), history)
    }

    /// A number that was not used yet.
    pub(crate) fn number(&mut self) -> Value {
        self.history.numbers += 1;
        self.history.numbers
    }

    pub(crate) fn id(&mut self, kind: char) -> ObjectId {
        let text = format!("{kind}{:015x}", self.number());
        ObjectId(text.as_bytes().try_into().unwrap())
    }

    pub(crate) fn position(&self) -> usize {
        self.medium.position()
    }

    pub(crate) fn sectors(&self) -> u64 {
        self.disk.store.sectors()
    }

    pub(crate) fn steps(&mut self, steps: &[Step]) {
        steps.iter().for_each(|step| self.step(*step));
    }

    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Write(start, count) => {
                let value = self.number();
                self.write(value, start..start + count, |disk| {
                    disk.write(start, count, value)
                });
            }
            Step::Discard(start, count) => {
                let blocks = start.next_multiple_of(8)..(start + count) / 8 * 8;
                self.write(0, blocks, |disk| disk.discard(start, count));
            }
            Step::WriteZeroes(start, count) => {
                self.write(0, start..start + count, |disk| disk.write_zeroes(start, count));
            }
            Step::Flush => self.flush(),
            Step::Snapshot => {
                let id = self.id('s');
                self.operate(Operation::Snapshot(id));
            }
            Step::Delete(index) => self.with_snapshot(index, Operation::Delete),
            Step::Rollback(index) => self.with_snapshot(index, Operation::Rollback),
            Step::Reinitialise => _ = self.operate(Operation::Reinitialise),
            Step::Grow(sectors) => {
                let sectors = self.sectors() + sectors;
                self.operate(Operation::Resize(sectors));
            }
            Step::Checkpoint => _ = self.allow(self.disk.store.checkpoint_now()),
            Step::Clone(index) => self.clone_snapshot(index),
            Step::Background => _ = self.allow(self.disk.store.step()),
            Step::Work => _ = self.allow(self.disk.store.work()),
            Step::Read => _ = self.check_live(),
            Step::Check => _ = self.allow(self.disk.store.check_all(false)),
            Step::Repair => _ = self.allow(self.disk.store.check_all(true)),
        }
    }

    /// What has come of something. It may only fail where calls of the medium have.
    fn allow<T, E: std::fmt::Debug>(&self, outcome: Result<T, E>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) if self.medium.faults().hits.is_empty() => panic!("{error:?}"),
            Err(_) => None,
        }
    }

    /// Reads the disk, as far as that can be done, and looks whether it holds what it should. Returns whether all of it
    /// could be read.
    pub(crate) fn check_live(&self) -> bool {
        let found = self.disk.read_what_can_be();
        let expected = self.history.expected(self.history.operations.len());
        self.history
            .check_live(&expected, &found, Crash::Kill, self.position());
        self.allow(if found.contains(&UNREAD) {
            Err("a read")
        } else {
            Ok(())
        })
        .is_some()
    }

    fn write(&mut self, value: Value, sectors: Range<u64>, write: impl FnOnce(&Disk) -> std::io::Result<()>) {
        let number = self.history.write_begins(value, sectors, self.medium.position());
        let outcome = write(&self.disk);
        let is_full = |error: &std::io::Error| error.raw_os_error() == Some(libc::ENOSPC);
        if !outcome.as_ref().is_err_and(is_full) {
            self.allow(outcome.as_ref());
        }
        self.history
            .write_ended(number, self.medium.position(), outcome.is_err());
    }

    pub(crate) fn flush(&mut self) {
        let submitted = self.history.stamp(self.medium.position());
        if self.allow(self.disk.flush()).is_none() {
            return;
        }
        let answered = Some(self.history.stamp(self.medium.position()));
        self.history.flushes.push(crate::history::Asked {
            what: (),
            submitted,
            answered,
            failed: false,
        });
    }

    /// Returns whether it was made.
    pub(crate) fn operate(&mut self, what: Operation) -> bool {
        let id = self.id('o');
        let number = self.history.operation_begins(id, what, self.medium.position());
        if self.allow(self.disk.store.operate(id, what)).is_none() {
            if !self.disk.store.has_failed() {
                self.history.operation_refused();
            }
            return false;
        }
        self.history.operation_ended(number, self.medium.position());
        if let Operation::Snapshot(id) = what {
            self.medium.faults().pause(true);
            let content = self.disk.read_what_can_be();
            self.medium.faults().pause(false);
            if !content.contains(&UNREAD) {
                self.history.set_content(id, content);
            }
        }
        true
    }

    pub(crate) fn visible(&self) -> Vec<ObjectId> {
        let expected = self.history.expected(self.history.operations.len());
        expected.snapshots.into_keys().collect()
    }

    fn with_snapshot(&mut self, index: usize, what: impl FnOnce(ObjectId) -> Operation) {
        let id = self.visible().get(index).copied();
        if let Some(id) = id.filter(|id| self.history.knows(*id)) {
            self.operate(what(id));
        }
    }

    fn clone_snapshot(&mut self, index: usize) {
        let snapshot = self.visible().get(index).copied();
        let Some(snapshot) = snapshot.filter(|id| self.history.knows(*id)) else {
            return;
        };
        let disk = self.id('d');
        let own = self.medium.beside();
        if !self.operate(Operation::Pin { id: snapshot, disk })
            || self
                .allow(create(&own, self.sectors(), 2, Some((&self.medium, snapshot))))
                .is_none()
        {
            return;
        }
        let image = own.image();
        if let Some(clone) = self.allow(Disk::open(own, vec![self.medium.clone()], boot(0))) {
            let content = clone.read_what_can_be();
            self.history
                .check_snapshot(snapshot, None, &content, self.medium.position());
        }
        let made = self.history.stamp(self.medium.position());
        self.history.clones.push(Clone {
            snapshot,
            image,
            made,
        });
    }

    /// Like [`Run::crash`], at `count` moments.
    pub(crate) fn crash_sometimes(&self, count: usize, cuts: usize, rng: &mut Rng) -> usize {
        let events = self.medium.events();
        let mut states = 0;
        for _ in 0..count {
            let position = rng.below(0..events.len() as u64 + 1) as usize;
            let moment = Moment::at(&self.start, &events, position);
            let again = rng.once_in(2);
            states += examine(&self.history, moment.killed(), Crash::Kill, position, again, rng);
            for image in moment.power_cuts(cuts, rng) {
                let again = rng.once_in(4);
                states += examine(&self.history, image, Crash::PowerCut, position, again, rng);
            }
        }
        states
    }

    /// Crashes of the medium's events from `first` on: every kill, and `cuts` power cuts for each sync and at the end.
    /// Returns how many crash states were looked at.
    pub(crate) fn crash(&self, first: usize, cuts: usize, rng: &mut Rng) -> usize {
        let events = self.medium.events();
        let mut states = 0;
        for position in first..=events.len() {
            let moment = Moment::at(&self.start, &events, position);
            let again = rng.once_in(4);
            states += examine(&self.history, moment.killed(), Crash::Kill, position, again, rng);
            let before_sync = matches!(events.get(position), None | Some(crate::medium::Event::Sync));
            if before_sync {
                for image in moment.power_cuts(cuts, rng) {
                    let again = rng.once_in(4);
                    states += examine(&self.history, image, Crash::PowerCut, position, again, rng);
                }
            }
        }
        states
    }
}
