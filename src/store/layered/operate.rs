//! Changes by the operator: snapshots, rollback, size, pins.
//!
//! Each is a record that is committed before it is answered. What freezes the map waits for the checkpoint that is being
//! made, so that at most one state of the map is on its way to the medium besides the present one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::error::LayeredError;
use super::format::record::Record;
use super::format::superblock::{PIN_PAGES, SNAPSHOT_PAGES};
use super::format::tables::{PINS, Pin, SNAPSHOTS, Snapshot};
use super::format::{ObjectId, PageRef};
use super::live::Live;
use super::medium::Medium;
use super::space::LAST_GENERATION;
use super::state::State;
use super::store::LayeredStore;
use super::tree::{MAP, Tree};
use crate::limits::MAX_SNAPSHOTS;
use crate::units::{ByteLen, Capacity, SECTOR_BYTES};

/// Time between two looks whether an epoch has settled.
const SETTLE_INTERVAL: Duration = Duration::from_micros(50);
/// How long requests in flight may take to end: twice, and shorter than the KMS waits for an answer.
const SETTLE_PATIENCE: Duration = Duration::from_secs(4);
/// Records that an operation needs room for: its own, and the mark.
const RECORDS: u64 = 16;

/// What an operator can have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Keep the disk as it is now.
    Snapshot(ObjectId),
    /// Give a snapshot up. Its space comes back in the background, when nothing pins it.
    Delete(ObjectId),
    /// Make the disk what a snapshot holds. No request may be in flight.
    Rollback(ObjectId),
    /// Make the disk empty. No request may be in flight.
    Reinitialise,
    /// Make the disk larger, to so many sectors.
    Resize(u64),
    /// Keep a snapshot for a clone.
    Pin {
        /// The snapshot.
        id: ObjectId,
        /// The clone.
        disk: ObjectId,
    },
    /// The clone is gone.
    Unpin {
        /// The snapshot.
        id: ObjectId,
        /// The clone.
        disk: ObjectId,
    },
}

/// The operation was not made; nothing has changed, unless the store has failed.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// There is no such snapshot, or it was deleted.
    #[error("there is no snapshot {0:?} in the store")]
    NoSnapshot(ObjectId),
    /// The id is taken.
    #[error("there is a snapshot {0:?} in the store already")]
    Exists(ObjectId),
    /// No more fit.
    #[error(
        "the store has as many snapshots or pins as it can have: delete some, and wait until their space is free"
    )]
    TooMany,
    /// Not larger, or too large.
    #[error("the size is smaller than the present one, or not one that a disk can have")]
    InvalidSize,
    /// Requests of before would have to be waited for too long.
    #[error("requests in flight did not end in time")]
    Busy,
    /// The store's.
    #[error(transparent)]
    Store(#[from] LayeredError),
}

impl<M: Medium> LayeredStore<M> {
    /// Carries an operation out, once: another with the same id has no effect. It is durable when this returns.
    ///
    /// # Errors
    /// [`OperationError`].
    pub fn operate(&self, operation: ObjectId, what: Operation) -> Result<(), OperationError> {
        let held = self.maintain();
        self.ensure_usable()?;
        if self.was_made(operation) {
            return Ok(());
        }
        self.check(&what)?;
        let (frozen, unwritten, room) = {
            let state = self.state();
            let on_its_way = state.freeze.as_ref().and_then(|freeze| freeze.snapshot);
            // A clone is made from the pages of the snapshot.
            let unwritten = matches!(what, Operation::Pin { id, .. } if on_its_way == Some(id));
            (state.freeze.is_some(), unwritten, state.journal.room())
        };
        let freezes = matches!(
            what,
            Operation::Snapshot(_) | Operation::Rollback(_) | Operation::Reinitialise
        );
        if freezes && frozen || unwritten || room < RECORDS {
            self.checkpoint(&held)?;
        }
        if freezes {
            // A snapshot, rollback or reinit makes the disk's leaves differ from those that are kept: there must be pages for that.
            // A deletion, which gives space back, must always be possible, and needs none.
            let needed = |state: &State| state.pages_needed(0, 0) + state.pages_reserved();
            self.ensure_pages(&mut self.state(), needed)?;
        }
        // A request in flight that does not end is found here, as a rule, where nothing has to be taken back.
        let waits = matches!(what, Operation::Snapshot(_));
        if waits && !self.settle(self.next_epoch()) {
            return Err(OperationError::Busy);
        }
        // Before there is a record: one that cannot be applied could not be replayed either.
        let target = self.target(&what)?;
        let made = self.make(operation, what, target);
        let made = made.inspect_err(|error| self.fail(error))?;
        drop(held);
        if freezes {
            self.state().wanted.checkpoint = true;
        }
        self.work.notify_all();
        if made { Ok(()) } else { Err(OperationError::Busy) }
    }

    /// Whether the operation of this id was made; the last 64 are remembered.
    pub fn was_made(&self, operation: ObjectId) -> bool {
        operation.is_some() && self.state().operations.contains(&operation)
    }

    fn check(&self, what: &Operation) -> Result<(), OperationError> {
        let state = self.state();
        let visible = |id: ObjectId| match state.snapshot(id) {
            Some(snapshot) if !snapshot.hidden => Ok(()),
            _ => Err(OperationError::NoSnapshot(id)),
        };
        let room = || {
            // What rollbacks leave behind counts too, but not against the operator.
            let visible = state.snapshots.iter().filter(|snapshot| !snapshot.hidden).count();
            let full = state.snapshots.len() + 1 >= SNAPSHOT_PAGES * SNAPSHOTS
                || state.generation >= LAST_GENERATION;
            if full || visible > MAX_SNAPSHOTS {
                return Err(OperationError::TooMany);
            }
            Ok(())
        };
        match *what {
            Operation::Snapshot(id) if state.snapshot(id).is_some() => Err(OperationError::Exists(id)),
            Operation::Snapshot(_) => {
                let visible = state.snapshots.iter().filter(|snapshot| !snapshot.hidden).count();
                if visible >= MAX_SNAPSHOTS {
                    return Err(OperationError::TooMany);
                }
                room()
            }
            Operation::Reinitialise => room(),
            Operation::Rollback(id) => visible(id).and_then(|()| room()),
            // Deleting twice is no error: the snapshot is gone, as is wanted.
            Operation::Delete(id) if state.snapshot(id).is_none() => Err(OperationError::NoSnapshot(id)),
            Operation::Delete(_) | Operation::Unpin { .. } => Ok(()),
            Operation::Pin { id, disk } => {
                visible(id)?;
                let pinned = state.pins.contains(&Pin { id, disk });
                if !pinned && state.pins.len() >= PIN_PAGES * PINS {
                    return Err(OperationError::TooMany);
                }
                Ok(())
            }
            Operation::Resize(sectors) => {
                let bytes = sectors.checked_mul(SECTOR_BYTES as u64).map(ByteLen);
                let valid = bytes.is_some_and(|bytes| Capacity::new(bytes).is_ok());
                if !valid || sectors < state.sectors {
                    return Err(OperationError::InvalidSize);
                }
                Ok(())
            }
        }
    }

    /// What the disk is to go on from: a snapshot or nothing, and its map. Those that do not change that have none.
    fn target(&self, what: &Operation) -> Result<Option<(Option<Snapshot>, Tree)>, LayeredError> {
        let snapshot = match *what {
            Operation::Rollback(id) => self.state().snapshot(id).copied(),
            Operation::Reinitialise => None,
            _ => return Ok(None),
        };
        let map = snapshot.map_or(PageRef::NONE, |snapshot| snapshot.map);
        Ok(Some((snapshot, Tree::load(&self.medium, MAP, self.uuid, map)?)))
    }

    /// Returns whether it is made; if not, it has been taken back.
    pub(super) fn make(
        &self,
        operation: ObjectId,
        what: Operation,
        target: Option<(Option<Snapshot>, Tree)>,
    ) -> Result<bool, LayeredError> {
        let record = match what {
            Operation::Snapshot(id) => Record::Snapshot { operation, id },
            Operation::Delete(id) => Record::Delete { operation, id },
            Operation::Rollback(id) => Record::Rollback { operation, id },
            Operation::Reinitialise => Record::Reinitialise { operation },
            Operation::Resize(sectors) => Record::Resize { operation, sectors },
            Operation::Pin { id, disk } => Record::Pin { id, disk },
            Operation::Unpin { id, disk } => Record::Unpin { id, disk },
        };
        let mut made = true;
        match what {
            Operation::Snapshot(id) => {
                let epoch = {
                    let mut state = self.state();
                    self.append(&mut state, &[record])?;
                    self.freeze_snapshot(&mut state, operation, id);
                    state.copy_after = self.epochs.current() + 1;
                    state.copy_after
                };
                // Requests that write in place to what is the snapshot's now are part of it, and must have ended when it is
                // told that it is there.
                made = self.settle(epoch);
                if !made {
                    let operation = ObjectId::NONE;
                    self.append(&mut self.state(), &[Record::Delete { operation, id }])?;
                    self.apply_delete(operation, id);
                }
            }
            _ => {
                self.append(&mut self.state(), &[record])?;
                match what {
                    Operation::Delete(id) => self.apply_delete(operation, id),
                    Operation::Resize(sectors) => self.apply_resize(operation, sectors),
                    Operation::Pin { id, disk } => self.apply_pin(Pin { id, disk }),
                    Operation::Unpin { id, disk } => self.apply_unpin(Pin { id, disk }),
                    Operation::Snapshot(_) | Operation::Rollback(_) | Operation::Reinitialise => {
                        if let Some((snapshot, tree)) = target {
                            self.go_on_from(operation, snapshot, tree);
                        }
                    }
                }
            }
        }
        self.sync()?;
        Ok(made)
    }

    /// The first epoch that has not begun.
    fn next_epoch(&self) -> u64 {
        // Epochs are begun under this lock.
        let _state = self.state();
        self.epochs.current() + 1
    }

    /// Begins the epoch if nobody has done so, and waits for the requests before it. False if they do not end in time.
    fn settle(&self, epoch: u64) -> bool {
        let deadline = Instant::now() + SETTLE_PATIENCE;
        loop {
            {
                let mut state = self.state();
                if self.has_settled(epoch) {
                    state.wake();
                    return true;
                }
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(SETTLE_INTERVAL);
        }
    }

    /// Whether the requests before the epoch have ended; it is begun if need be, and possible. With the state's lock.
    pub(super) fn has_settled(&self, epoch: u64) -> bool {
        if self.epochs.current() < epoch {
            // Not possible while a request of long ago is in flight.
            let _ = self.epochs.try_advance();
        }
        self.epochs.settled(epoch)
    }

    pub(super) fn apply_snapshot(&self, operation: ObjectId, id: ObjectId) {
        self.freeze_snapshot(&mut self.state(), operation, id);
    }

    fn freeze_snapshot(&self, state: &mut State, operation: ObjectId, id: ObjectId) {
        self.freeze(state, Some(id), None);
        self.end_generation(state, id, false);
        state.parent = id;
        let floor = state.floor(u64::MAX);
        self.floor.store(floor, Ordering::SeqCst);
        state.remember(operation);
    }

    /// What the disk is now becomes a snapshot.
    fn end_generation(&self, state: &mut State, id: ObjectId, hidden: bool) {
        state.snapshots.push(Snapshot {
            id,
            parent: state.parent,
            generation: state.generation,
            hidden,
            inherits: state.inherits,
            cursor: 0,
            sectors: state.sectors,
            map: PageRef::NONE,
        });
        state.generation += 1;
    }

    /// # Errors
    /// The snapshot's index pages cannot be read.
    pub(super) fn apply_rollback(&self, operation: ObjectId, id: ObjectId) -> Result<(), LayeredError> {
        let found = self.state().snapshot(id).copied();
        let Some(snapshot) = found else {
            return Err(LayeredError::Failed);
        };
        let tree = Tree::load(&self.medium, MAP, self.uuid, snapshot.map)?;
        self.go_on_from(operation, Some(snapshot), tree);
        Ok(())
    }

    /// # Errors
    /// None that can happen: an empty tree is not read.
    pub(super) fn apply_reinitialise(&self, operation: ObjectId) -> Result<(), LayeredError> {
        let tree = Tree::load(&self.medium, MAP, self.uuid, PageRef::NONE)?;
        self.go_on_from(operation, None, tree);
        Ok(())
    }

    /// The disk goes on from a snapshot, or from nothing. What it was becomes a deleted snapshot.
    fn go_on_from(&self, operation: ObjectId, snapshot: Option<Snapshot>, tree: Tree) {
        let inherits = snapshot.is_some_and(|snapshot| snapshot.inherits);
        let live = Live::new(&tree, inherits, &self.bases);
        let mut trees = self.trees();
        let mut state = self.state();
        let former = std::mem::replace(&mut trees.map, tree);
        let left = discarded(state.generation);
        self.freeze(&mut state, Some(left), Some(former));
        self.end_generation(&mut state, left, true);
        self.live.store(Arc::new(live));
        state.parent = snapshot.map_or(ObjectId::NONE, |snapshot| snapshot.id);
        state.inherits = inherits;
        let floor = state.floor(u64::MAX);
        self.floor.store(floor, Ordering::SeqCst);
        state.wanted.leaves.clear();
        state.remember(operation);
        state.wake();
    }

    pub(super) fn apply_delete(&self, operation: ObjectId, id: ObjectId) {
        let mut state = self.state();
        if let Some(snapshot) = state.snapshot_mut(id) {
            snapshot.hidden = true;
        }
        if operation.is_some() {
            state.remember(operation);
        } else {
            // The last operation, which has made it, takes it back, and has done nothing.
            state.operations.pop_back();
        }
    }

    pub(super) fn apply_resize(&self, operation: ObjectId, sectors: u64) {
        let mut state = self.state();
        state.sectors = state.sectors.max(sectors);
        state.remember(operation);
    }

    pub(super) fn apply_pin(&self, pin: Pin) {
        let mut state = self.state();
        if !state.pins.contains(&pin) {
            state.pins.push(pin);
        }
    }

    pub(super) fn apply_unpin(&self, pin: Pin) {
        self.state().pins.retain(|other| *other != pin);
    }
}

/// Id of what a rollback leaves. It has a character that ids from outside do not have.
fn discarded(generation: u32) -> ObjectId {
    let mut id = ObjectId::NONE;
    let text = format!("left.{generation:011}");
    id.0.copy_from_slice(&text.as_bytes()[..16]);
    id
}
