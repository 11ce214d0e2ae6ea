//! What workers must not wait for: leaves are loaded, checkpoints made, freed clusters given back, deletions done.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sealblk_proto::causes::with_causes;

use super::delete::Deletion;
use super::error::LayeredError;
use super::format::CLUSTER_BYTES;
use super::medium::Medium;
use super::space::Space;
use super::state::{Settling, State};
use super::store::LayeredStore;
use crate::sandbox::{Kind, narrow};

/// Time between two looks when nobody asks for anything, as long as there is something to look at.
const IDLE_INTERVAL: Duration = Duration::from_millis(200);
/// Time between two looks while an operation waits for requests in flight to end.
const SETTLE_INTERVAL: Duration = Duration::from_micros(100);
/// Pause between two steps of a deletion, so that it leaves the medium and the processor to guests.
const DELETE_INTERVAL: Duration = Duration::from_millis(4);
/// Leaves beyond the present dirty ones that the arena is kept ready for.
const LEAVES_AHEAD: usize = 512;
/// How many there are.
const THREADS: usize = 2;

/// The threads of an open store; they end when this is dropped.
#[derive(Debug)]
pub struct Threads {
    stop: Box<dyn StopStore>,
    threads: Vec<JoinHandle<()>>,
}

/// What a thread does until it is told to stop.
type Work<M> = fn(&LayeredStore<M>);

trait StopStore: std::fmt::Debug + Send + Sync {
    fn stop(&self);
}

impl<M: Medium> StopStore for Arc<LayeredStore<M>> {
    fn stop(&self) {
        self.state().wanted.stop = true;
        self.work.notify_all();
    }
}

impl Threads {
    /// Starts the threads of a store.
    ///
    /// # Errors
    /// The kernel's, if it has no thread to give.
    pub fn start<M: Medium>(store: &Arc<LayeredStore<M>>) -> std::io::Result<Self> {
        let mut threads = Threads {
            stop: Box::new(store.clone()),
            threads: Vec::new(),
        };
        let works: [(&str, Work<M>); THREADS] = [
            ("store-loader", LayeredStore::load_until_stopped),
            ("store", LayeredStore::work_until_stopped),
        ];
        for (name, work) in works {
            let store = store.clone();
            let thread = std::thread::Builder::new().name(name.to_owned());
            threads.threads.push(thread.spawn(move || {
                narrow(Kind::Store);
                work(&store);
            })?);
        }
        Ok(threads)
    }
}

impl Threads {
    /// Waits for their end, at rest or not.
    pub(in crate::store) fn end(&mut self) {
        self.stop.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the store has panicked");
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end();
    }
}

impl<M: Medium> LayeredStore<M> {
    /// See [`crate::store::Store::quiesce_background`].
    pub fn quiesce_background(&self, patience: Duration) -> bool {
        let begun = Instant::now();
        let mut state = self.state();
        state.wanted.rest = true;
        self.work.notify_all();
        while state.resting < THREADS {
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                drop(state);
                self.go_on();
                return false;
            }
            let waited = self.work.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// See [`crate::store::Store::go_on`].
    pub fn go_on(&self) {
        self.state().wanted.rest = false;
        self.work.notify_all();
    }

    /// Whether it is at rest, or is to come to rest.
    pub(in crate::store) fn is_to_rest(&self) -> bool {
        self.state().wanted.rest
    }

    /// Of a thread, between two things that it does.
    fn rest_if_told<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.wanted.rest && !state.wanted.stop {
            state.resting += 1;
            self.work.notify_all();
            while state.wanted.rest && !state.wanted.stop {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.resting -= 1;
        }
        state
    }

    fn load_until_stopped(&self) {
        loop {
            {
                let mut state = self.state();
                loop {
                    state = self.rest_if_told(state);
                    if state.wanted.stop {
                        return;
                    }
                    if !state.wanted.leaves.is_empty() {
                        break;
                    }
                    state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
            self.load_wanted();
        }
    }

    /// Loads the leaves that are asked for. One that is damaged fails the requests for it, and no others.
    fn load_wanted(&self) {
        loop {
            let (live, leaf) = {
                let mut state = self.state();
                let Some(leaf) = state.wanted.leaves.pop_first() else {
                    return;
                };
                (self.live.load_full(), leaf)
            };
            if let Err(error) = self.load_leaf(&live, leaf) {
                let why = with_causes(&error);
                log::error!("part {leaf} of the map cannot be loaded: {why}");
                live.set_damaged(leaf, why);
            }
            self.state().wake();
        }
    }

    fn work_until_stopped(&self) {
        let mut deletion = None;
        // Where the journal ended at the last look.
        let mut seen = None;
        loop {
            let deleting = match self.work_once(&mut deletion) {
                Ok(deleting) => deleting,
                Err(error) => {
                    self.fail(&error);
                    false
                }
            };
            let mut state = self.rest_if_told(self.state());
            if state.wanted.stop {
                return;
            }
            let asked = !self.has_failed() && (state.wanted.checkpoint || state.wanted.reclaim);
            // What there is no room for is tried again after a while.
            if asked && !state.full {
                continue;
            }
            let deleting = deleting && !state.full;
            let end = Some(state.journal.next());
            if !asked && !deleting && seen == end && state.is_at_rest() {
                state.asleep = true;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.asleep = false;
                continue;
            }
            seen = end;
            let interval = match () {
                () if state.wanted.settled || state.settling.is_some() => SETTLE_INTERVAL,
                () if deleting => DELETE_INTERVAL,
                () => IDLE_INTERVAL,
            };
            drop(self.work.wait_timeout(state, interval));
        }
    }

    /// One round of everything. Returns whether a deletion is going on.
    ///
    /// # Errors
    /// [`LayeredError`]; then the store has failed.
    fn work_once(&self, deletion: &mut Option<Deletion>) -> Result<bool, LayeredError> {
        if self.has_failed() {
            // Workers that wait ask again, and are told of the failure.
            self.state().wake();
            return Ok(false);
        }
        let checkpoint = {
            let state = self.state();
            state.wanted.checkpoint || state.freeze.is_some() || state.journal.is_half_full()
        };
        if checkpoint {
            match self.checkpoint_now() {
                Err(LayeredError::NoSpace) => {
                    // Workers that wait for the checkpoint ask again, and are told then that there is no room.
                    self.no_room.log(|suppressed| {
                        log::warn!("there is no room for a checkpoint ({suppressed} times more before)");
                    });
                    let mut state = self.state();
                    state.wanted.checkpoint = false;
                    state.full = true;
                    state.wake();
                }
                made => made?,
            }
        }
        self.reclaim()?;
        self.prepare_arena();
        {
            let mut state = self.state();
            if state.wanted.settled && self.has_settled(state.copy_after) {
                state.wanted.settled = false;
                state.wake();
            }
        }
        self.delete_some(deletion)
    }

    /// One round of what the threads do, without them. Returns whether a deletion is going on.
    ///
    /// # Errors
    /// [`LayeredError`]; then the store has failed.
    pub fn step(&self) -> Result<bool, LayeredError> {
        self.load_wanted();
        self.work_once(&mut None).inspect_err(|error| self.fail(error))
    }

    /// Does what is to be done until nothing is left, without threads.
    ///
    /// # Errors
    /// [`LayeredError`]; then the store has failed.
    pub fn work(&self) -> Result<(), LayeredError> {
        let mut deletion = None;
        loop {
            self.load_wanted();
            let deleting = self
                .work_once(&mut deletion)
                .inspect_err(|error| self.fail(error))?;
            let state = self.state();
            let more = deleting
                || state.wanted.checkpoint
                || state.wanted.reclaim
                || state.freeze.is_some()
                || !state.wanted.leaves.is_empty();
            if !more || state.full {
                return Ok(());
            }
        }
    }

    /// Gives freed clusters back: first their record must be committed, then requests that may look at them must have
    /// ended.
    fn reclaim(&self) -> Result<(), LayeredError> {
        let settled = {
            let mut state = self.state();
            // A worker that needs more clusters sets this again.
            state.wanted.reclaim = false;
            let epoch = state.settling.as_ref().map(|settling| settling.epoch);
            match epoch {
                Some(epoch) if self.epochs.settled(epoch) => state.settling.take(),
                Some(_) => return Ok(()),
                None => None,
            }
        };
        if let Some(mut settling) = settled {
            self.punch(&mut settling.clusters);
            settling.live.map.release(settling.splits);
            let mut state = self.state();
            for cluster in settling.clusters {
                state.space.release(cluster);
                state.removal_lacks_room = false;
                state.full = false;
            }
            state.wake();
        }
        let uncommitted = {
            let state = self.state();
            let committed = state.journal.committed();
            state.freed.iter().any(|(record, _)| *record >= committed)
        };
        if uncommitted {
            self.sync()?;
        }
        let mut state = self.state();
        let live = self.live.load_full();
        let splits = live.map.take_retired();
        if state.freed.is_empty() && splits.is_empty() {
            return Ok(());
        }
        let committed = state.journal.committed();
        let (ready, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut state.freed)
            .into_iter()
            .partition(|(record, _)| *record < committed);
        state.freed = rest;
        match self.epochs.try_advance() {
            Some(epoch) => {
                state.settling = Some(Settling {
                    epoch,
                    clusters: ready.into_iter().map(|(_, cluster)| cluster).collect(),
                    live,
                    splits,
                });
            }
            // Requests of the fourth last epoch are still in flight. Split entries are not missed until the next time.
            None => {
                state.freed.extend(ready);
                live.map.retire_again(splits);
            }
        }
        Ok(())
    }

    fn punch(&self, clusters: &mut [u32]) {
        clusters.sort_unstable();
        for run in clusters.chunk_by(|one, next| one + 1 == *next) {
            let (offset, len) = (
                u64::from(run[0]) * CLUSTER_BYTES,
                run.len() as u64 * CLUSTER_BYTES,
            );
            if let Err(error) = self.medium.punch(offset, len) {
                log::debug!("{len} bytes at {offset} cannot be given back to the host: {error}");
            }
        }
    }

    /// Keeps the arena ready for the next checkpoint. If the medium is full, writes that need it are told so.
    pub(super) fn prepare_arena(&self) {
        loop {
            let cluster = {
                let mut state = self.state();
                let leaves = super::layout::leaves_of(state.sectors).min(LEAVES_AHEAD as u64);
                if state.pages_needed(leaves as usize, 0) <= state.space.free_pages() {
                    return;
                }
                state.space.take(&self.medium)
            };
            // Not with the lock: the medium may take its time.
            let reserved = cluster.and_then(|cluster| match Space::reserve(&self.medium, cluster) {
                Ok(()) => Ok(cluster),
                Err(error) => {
                    self.state().space.release(cluster);
                    Err(error)
                }
            });
            match reserved {
                Ok(cluster) => self.state().space.add_to_arena(cluster),
                Err(error) => return log::debug!("no more room for metadata: {error}"),
            }
        }
    }
}
