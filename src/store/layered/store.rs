//! A store that is open. Its methods are in the files that use this one.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use vmm_sys_util::eventfd::EventFd;

use super::epoch::Epochs;
use super::error::LayeredError;
use super::format::Uuid;
use super::format::page::PageDamage;
use super::format::record::Record;
use super::journal::Replay;
use super::layout::fixed_clusters;
use super::live::{BaseFile, Live};
use super::medium::Medium;
use super::state::State;
use super::table::Births;
use super::tree::Tree;
use crate::rate_limit::RateLimit;
use crate::store::plan::{Pass, Slot};
use crate::store::poison::Poison;

/// An open layered store. One process at a time has a file open so, and holds the file's lock.
pub struct LayeredStore<M: Medium> {
    pub(super) medium: M,
    pub(super) bases: Vec<BaseFile<M>>,
    pub(super) uuid: Uuid,
    /// The map of the disk as it is now.
    pub(super) live: ArcSwap<Live>,
    pub(super) births: Arc<Births>,
    /// Generation of the snapshot that the disk goes on from: younger clusters are its own.
    pub(super) floor: AtomicU32,
    pub(super) epochs: Epochs,
    /// Held by an examination of the metadata; always taken before the other three.
    pub(super) examination: Mutex<()>,
    /// Held by a checkpoint, and by operations that must not meet one; always taken before the other two.
    pub(super) maintenance: Mutex<()>,
    /// Always taken before `state`.
    pub(super) trees: Mutex<Trees>,
    pub(super) state: Mutex<State>,
    /// Told when the background has something to do.
    pub(super) work: Condvar,
    pub(super) poison: Poison,
    /// Held by a sync of the metadata's file.
    pub(super) syncing: Mutex<()>,
    /// Of the message that there is no room for a checkpoint.
    pub(super) no_room: RateLimit,
    /// Nothing but an examination can be done. Taken by itself.
    pub(super) suspended: Mutex<Option<Suspended>>,
    /// Whether `suspended` is, for who must not take it.
    pub(super) is_suspended: AtomicBool,
}

/// What lies on the medium.
#[derive(Debug)]
pub(super) struct Trees {
    pub(super) map: Tree,
    pub(super) space: Tree,
}

/// A store that waits for its space table to be repaired, and what opening it has not done yet.
#[derive(Debug)]
pub(super) struct Suspended {
    pub(super) damage: PageDamage,
    pub(super) replay: Replay,
    pub(super) boot: [u8; 16],
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
        state.space.allocated(fixed_clusters(&state.superblock))
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

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked with the lock may have left half a change; but the release build ends by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn trees(&self) -> MutexGuard<'_, Trees> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn maintain(&self) -> MutexGuard<'_, ()> {
        self.maintenance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ensure_sound(&self) -> io::Result<()> {
        self.ensure_usable().map_err(io::Error::other)
    }

    /// From here on nothing is written: what is in memory and on the medium may differ.
    pub(super) fn fail(&self, error: &dyn std::error::Error) {
        self.poison.set("its metadata cannot be kept", error);
        self.state().wake();
    }

    /// Writes records to the journal. What they say may give the background something to do.
    ///
    /// # Errors
    /// The medium's; then the store has failed, of which the workers that wait are still to be told by [`LayeredStore::fail`].
    pub(super) fn append(&self, state: &mut State, records: &[Record]) -> io::Result<()> {
        if std::mem::take(&mut state.asleep) {
            self.work.notify_all();
        }
        state
            .journal
            .append(&self.medium, records)
            .inspect_err(|error| self.poison.set("its journal cannot be written", error))
    }

    /// Has `wake` written to when there is a reason to ask again.
    pub(super) fn call_back(&self, state: &mut State, wake: &Arc<EventFd>) {
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
