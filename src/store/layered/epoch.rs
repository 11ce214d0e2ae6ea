//! Epochs: who still works with what was true before a moment.
//!
//! Each request is a *pass*: it enters, looks the map up, does its input and output, and exits. Who takes something
//! away from the map (a freed cluster, an unused split) or changes what requests go by (the generation of the newest
//! snapshot) begins a new epoch afterwards; once the earlier ones have settled, nobody goes by the old state.

use super::sync::{AtomicU64, Ordering, thread_index};

/// Epochs that may have passes at a time.
const RING: u64 = 4;

/// Bits of a count of passes.
const COUNT_BITS: u64 = 15;

/// Most passes of one shard in one epoch.
const MAX_PASSES: u64 = (1 << COUNT_BITS) - 1;

/// One epoch further, in a shard's word: the ring index is its two topmost bits, so that it wraps by itself.
const NEXT_EPOCH: u64 = 1 << 62;

/// Most shards: a [`Pass`] has six bits for theirs.
const MAX_SHARDS: usize = 64;

/// Counts of passes by epoch. At most four epochs have passes at a time.
///
/// Threads count in shards of their own. A shard's counts and its current epoch are one atomic word, so that a pass
/// is counted in the epoch that is current at that very moment; and since every change of the word is a
/// read-modify-write, what happened before the change of the epoch is seen by all passes that enter after it, and
/// what was done in passes is seen by whom finds them ended.
pub(crate) struct Epochs {
    current: AtomicU64,
    shards: Box<[Shard]>,
}

/// Passes in flight in each epoch of the ring (15 bits each), and the ring index of the current epoch (2 bits); on a
/// pair of cache lines of its own, since processors fetch them in pairs.
#[repr(align(128))]
struct Shard(AtomicU64);

/// A request in flight; to be given back by [`Epochs::exit`], on any thread.
#[derive(Debug)]
#[must_use = "its epoch never settles if it does not exit"]
pub(crate) struct Pass(u8);

impl Epochs {
    /// Epoch 0 is current. Up to `shards` threads count without disturbing each other; there may be more.
    ///
    /// # Panics
    /// If `shards` is 0 or above 64.
    pub(crate) fn new(shards: usize) -> Self {
        assert!((1..=MAX_SHARDS).contains(&shards));
        Epochs {
            current: AtomicU64::new(0),
            shards: (0..shards).map(|_| Shard(AtomicU64::new(0))).collect(),
        }
    }

    /// Begins a pass, in the current epoch. Lock-free.
    ///
    /// # Panics
    /// When all shards are full. One has room for 32,767 passes of an epoch, twice of what all queues of a session can
    /// hold; so as many shards as sessions have twice the room that they need.
    #[inline]
    pub(crate) fn enter(&self) -> Pass {
        let own = thread_index() % self.shards.len();
        let pass = self.enter_shard(own);
        pass.unwrap_or_else(|| self.enter_other(own))
    }

    /// In this shard, unless it is full.
    #[inline]
    fn enter_shard(&self, shard: usize) -> Option<Pass> {
        let counts = &self.shards[shard].0;
        let mut word = counts.load(Ordering::Relaxed);
        loop {
            let epoch = word / NEXT_EPOCH;
            if count(word, epoch) == MAX_PASSES {
                return None;
            }
            match counts.compare_exchange_weak(word, word + one(epoch), Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Some(Pass(shard as u8 * RING as u8 + epoch as u8)),
                Err(now) => word = now,
            }
        }
    }

    /// In whichever has room: many sessions' queues may have come to the same.
    #[cold]
    fn enter_other(&self, full: usize) -> Pass {
        let mut others = (1..self.shards.len()).map(|step| (full + step) % self.shards.len());
        let pass = others.find_map(|shard| self.enter_shard(shard));
        pass.expect("too many requests at a time")
    }

    /// Ends a pass. Wait-free.
    #[inline]
    pub(crate) fn exit(&self, pass: Pass) {
        let (shard, epoch) = (pass.0 / RING as u8, pass.0 % RING as u8);
        self.shards[usize::from(shard)]
            .0
            .fetch_sub(one(u64::from(epoch)), Ordering::Release);
    }

    /// The number of the newest epoch that has begun.
    pub(crate) fn current(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// Begins a new epoch and gives its number; none if passes of the fourth last are in flight. For one caller at a
    /// time.
    ///
    /// What the caller did before is seen by every pass of the new epoch. Passes that enter after the call are in the
    /// new epoch; those that enter during it, in either.
    pub(crate) fn try_advance(&self) -> Option<u64> {
        let next = self.current() + 1;
        if !self.is_empty(next) {
            return None;
        }
        for shard in &self.shards {
            shard.0.fetch_add(NEXT_EPOCH, Ordering::Release);
        }
        self.current.store(next, Ordering::Release);
        Some(next)
    }

    /// Whether all passes of the epochs before `epoch` have ended. What they did is then seen by the caller. Once
    /// true, it remains so. False for an epoch that has not begun.
    pub(crate) fn settled(&self, epoch: u64) -> bool {
        let current = self.current();
        // Epochs that are further back have ended, or the current one could not have begun.
        let oldest = (current + 1).saturating_sub(RING);
        epoch <= current && (oldest..epoch).all(|epoch| self.is_empty(epoch))
    }

    fn is_empty(&self, epoch: u64) -> bool {
        self.shards
            .iter()
            .all(|shard| count(shard.0.load(Ordering::Acquire), epoch) == 0)
    }
}

/// One pass of `epoch` in a shard's word.
fn one(epoch: u64) -> u64 {
    1 << (COUNT_BITS * (epoch % RING))
}

/// Passes of `epoch` in a shard's word.
fn count(word: u64, epoch: u64) -> u64 {
    word >> (COUNT_BITS * (epoch % RING)) & MAX_PASSES
}
