//! The layered store: one file or device with a thin disk and its snapshots. `docs/format.md` draws the bytes and says
//! why they survive any crash.
//!
//! - [`map`], [`table`], [`epoch`]: what queue workers read without locks.
//! - `read`, `write`, `discard`, `flush`: plans for the workers.
//! - `state`: everything else that the store knows, behind one lock that is never held during I/O, except for records of
//!   the journal, which go to the page cache.
//! - `checkpoint`: brings the state into pages, so that the journal can go on; `open`: brings it back.
//! - `operate`: changes by the operator; `delete`: frees what only deleted snapshots hold; `check`, `report`.
//! - `background`: the threads that do what workers must not wait for.

mod background;
mod check;
mod checkpoint;
mod create;
mod delete;
mod discard;
pub(crate) mod entry;
pub(crate) mod epoch;
mod expected;
mod flush;
mod format;
mod journal;
mod live;
pub(crate) mod map;
mod medium;
mod open;
mod operate;
mod read;
mod report;
mod ring;
mod space;
mod state;
mod superblocks;
mod sync;
pub(crate) mod table;
mod tree;
mod write;

#[cfg(test)]
mod epoch_tests;
#[cfg(test)]
mod full_tests;
#[cfg(test)]
mod gated;
#[cfg(test)]
mod gated_tests;
#[cfg(test)]
mod map_tests;
#[cfg(test)]
mod table_tests;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use vmm_sys_util::eventfd::EventFd;

use self::epoch::Epochs;
use self::live::{BaseFile, Live};
use self::open::Suspended;
use self::state::State;
use self::table::Births;
use self::tree::Tree;
use super::plan::{Pass, Slot};
use super::poison::{Poison, Poisoned};
use crate::rate_limit::RateLimit;

pub use self::background::Threads;
pub use self::check::Findings;
pub use self::create::{Base, NewStore};
pub use self::expected::{Expected, StoreState};
pub use self::format::page::PageDamage;
use self::format::record::Record;
pub use self::format::superblock::SuperblockError;
pub use self::format::{ObjectId, Uuid};
pub use self::journal::JournalDamage;
pub use self::medium::{FileMedium, Medium};
pub use self::open::OpenLayered;
pub use self::operate::{Operation, OperationError};
pub use self::report::{Report, SnapshotReport};

/// The store cannot be opened, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LayeredError {
    /// The kernel's.
    #[error("the store's medium fails")]
    Io(#[from] io::Error),
    /// A page is damaged, or cannot be read.
    #[error(transparent)]
    Damage(#[from] PageDamage),
    /// Neither copy of the superblock can be used.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// Records are missing.
    #[error(transparent)]
    Journal(#[from] JournalDamage),
    /// There is something in the way of a new store.
    #[error("there is a store already")]
    Exists,
    /// A base is not the file that the store was made from.
    #[error("base {0} is not the file that this disk was cloned from")]
    WrongBase(u8),
    /// Not as many bases as the store has.
    #[error("the store has {needed} bases, and {given} were given")]
    Bases {
        /// Given.
        given: usize,
        /// Needed.
        needed: usize,
    },
    /// It was made for another disk.
    #[error("the store is that of disk-{disk:?}, of lineage lin-{lineage:?}: put this disk's own store back")]
    Foreign {
        /// The disk.
        disk: ObjectId,
        /// The lineage.
        lineage: ObjectId,
    },
    /// An older state of it, or a changed one.
    #[error(
        "the store has superblock {found}, and {last} was the last that is known: an older copy of it is in its place, or it \
         was changed since; put the newest back"
    )]
    RolledBack {
        /// The sequence that it has.
        found: u64,
        /// The sequence that was last said.
        last: u64,
    },
    /// The snapshot to clone is not there, or not pinned.
    #[error("the base has no pinned snapshot {0:?}")]
    NotPinned(ObjectId),
    /// The host has no room for metadata.
    #[error("there is no room for the store's metadata")]
    NoSpace,
    /// It has failed before.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// It contradicts itself in memory.
    #[error("the store's state makes no sense")]
    Failed,
    /// Whoever asked for an examination does not want it any more.
    #[error("the examination was given up")]
    Unwanted,
}

/// An open layered store. One process at a time has a file open so; whoever opens it holds the file's lock.
pub struct LayeredStore<M: Medium> {
    medium: M,
    bases: Vec<BaseFile<M>>,
    uuid: Uuid,
    /// The map of the disk as it is now.
    live: ArcSwap<Live>,
    births: Arc<Births>,
    /// Generation of the snapshot that the disk goes on from: younger clusters are its own.
    floor: AtomicU32,
    epochs: Epochs,
    /// Held by whoever examines the metadata; always taken before the other three.
    examination: Mutex<()>,
    /// Held by whoever makes a checkpoint, or what must not meet one; always taken before the other two.
    maintenance: Mutex<()>,
    /// Always taken before `state`.
    trees: Mutex<Trees>,
    state: Mutex<State>,
    /// Told when the background has something to do.
    work: Condvar,
    poison: Poison,
    /// Held by whoever syncs the metadata's file.
    syncing: Mutex<()>,
    /// Of the message that there is no room for a checkpoint.
    no_room: RateLimit,
    /// Nothing but an examination can be done. Taken by itself.
    suspended: Mutex<Option<Suspended>>,
    /// Whether `suspended` is, for who must not take it.
    is_suspended: AtomicBool,
}

/// What lies on the medium.
#[derive(Debug)]
struct Trees {
    map: Tree,
    space: Tree,
}

impl<M: Medium> LayeredStore<M> {
    /// Identity of the file.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Size of the disk, in sectors.
    pub fn sectors(&self) -> u64 {
        self.state().sectors
    }

    /// Bytes in use in the file: data and metadata.
    pub fn allocated(&self) -> u64 {
        let state = self.state();
        state.space.allocated(create::fixed_clusters(&state.superblock))
    }

    /// Files that data is read from: the store itself, and its bases.
    pub fn slots(&self) -> usize {
        1 + self.bases.len()
    }

    /// Where data of a slot lies: 0 is the store itself.
    pub fn medium(&self, slot: Slot) -> &M {
        match slot.0 {
            0 => &self.medium,
            base => &self.bases[usize::from(base) - 1].medium,
        }
    }

    /// A planned transfer has ended.
    pub fn end(&self, pass: Pass) {
        if let Some(pass) = pass.0 {
            self.epochs.exit(pass);
        }
    }

    /// Whether it has failed for good: part of the metadata could not be written, or a sync has failed.
    pub fn poison(&self) -> &Poison {
        &self.poison
    }

    /// Whether nothing can be done: it is [poisoned](LayeredStore::poison), or waits for its repair.
    pub fn has_failed(&self) -> bool {
        self.poison.is_set() || self.is_suspended.load(Ordering::Acquire)
    }

    /// What is to be asked before anything is done with it.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn ensure_usable(&self) -> Result<(), LayeredError> {
        self.poison.check()?;
        if self.is_suspended.load(Ordering::Acquire)
            && let Some(damage) = self.suspended()
        {
            return Err(LayeredError::Damage(damage));
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panics with it may have left half a change; the release build ends then.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trees(&self) -> MutexGuard<'_, Trees> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn maintain(&self) -> MutexGuard<'_, ()> {
        self.maintenance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ensure_sound(&self) -> io::Result<()> {
        self.ensure_usable().map_err(io::Error::other)
    }

    /// From here on nothing is written: what is in memory and on the medium may differ.
    fn fail(&self, error: &dyn std::error::Error) {
        self.poison.set("its metadata cannot be kept", error);
        self.state().wake();
    }

    /// Writes records to the journal. What they say may give the background something to do.
    ///
    /// # Errors
    /// The medium's; then the store has failed, of which whoever waits is still to be told by [`LayeredStore::fail`].
    fn append(&self, state: &mut State, records: &[Record]) -> io::Result<()> {
        if std::mem::take(&mut state.asleep) {
            self.work.notify_all();
        }
        state
            .journal
            .append(&self.medium, records)
            .inspect_err(|error| self.poison.set("its journal cannot be written", error))
    }

    /// Has `wake` written to when there is a reason to ask again.
    fn call_back(&self, state: &mut State, wake: &Arc<EventFd>) {
        state.wait(wake);
        self.work.notify_all();
    }
}

impl<M: Medium> fmt::Debug for LayeredStore<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayeredStore")
            .field("uuid", &self.uuid)
            .finish_non_exhaustive()
    }
}
