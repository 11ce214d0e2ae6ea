//! What a session has set up, and what is wrong with it, for the operator: posted by the session and its workers, and read by the control thread while
//! the session goes on.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use sealblk_proto::message::{Failure, SessionDetail, code};

use super::features;
use crate::virtqueue::RingBroken;

/// Kicks without a chain after which something seems to be wrong: QEMU kicks each queue once by itself.
const SUSPICIOUS_KICKS: u32 = 2;

/// What helps where memory is not shared.
const SHARE: &str = "QEMU needs -object memory-backend-memfd,id=mem0,size=SIZE,share=on and -machine memory-backend=mem0, \
                     cloud-hypervisor --memory shared=on";

/// How one run of a queue fares, as its worker notes it.
#[derive(Debug, Default)]
pub(super) struct QueueHealth {
    broken: OnceLock<RingBroken>,
    unrecorded: AtomicBool,
    /// Kicks after which there was no chain.
    idle_kicks: AtomicU32,
    has_served: AtomicBool,
}

impl QueueHealth {
    pub(super) fn note_broken(&self, why: RingBroken) {
        // The first reason is the one.
        let _ = self.broken.set(why);
    }

    pub(super) fn note_unrecorded(&self) {
        self.unrecorded.store(true, Ordering::Relaxed);
    }

    /// The guest has kicked, and all that there is was taken; `found`: whether there has ever been anything.
    pub(super) fn note_kick(&self, found: bool) {
        if found {
            self.has_served.store(true, Ordering::Relaxed);
        } else {
            self.idle_kicks.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One queue.
#[derive(Clone, Debug)]
pub(super) struct QueueView {
    /// The frontend has said where the queue's rings are.
    pub is_set_up: bool,
    /// The rings are in no memory region.
    pub is_outside: bool,
    pub is_running: bool,
    pub health: Arc<QueueHealth>,
}

/// A session between two messages.
#[derive(Clone, Debug)]
pub(super) struct SessionView {
    pub features: u64,
    pub protocol: u64,
    pub regions: usize,
    /// Bytes of all regions.
    pub memory: u64,
    pub queues: Vec<QueueView>,
}

/// Where the sessions of one socket, one after another, post what others may see.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Posted>);

#[derive(Debug, Default)]
struct Posted {
    session: Option<SessionView>,
    /// What was refused last, until a queue runs: also of a connection that has ended for it.
    refused: Option<Failure>,
}

impl Board {
    pub(super) fn post(&self, session: SessionView) {
        let mut posted = self.lock();
        if session.queues.iter().any(|queue| queue.is_running) {
            posted.refused = None;
        }
        posted.session = Some(session);
    }

    pub(super) fn refuse(&self, why: Failure) {
        self.lock().refused = Some(why);
    }

    /// The connection has ended.
    pub(super) fn clear(&self) {
        self.lock().session = None;
    }

    /// As it is at this moment.
    pub(super) fn detail(&self) -> SessionDetail {
        let posted = self.lock();
        let mut troubles: Vec<Failure> = posted.refused.iter().cloned().collect();
        let Some(session) = &posted.session else {
            return SessionDetail {
                troubles,
                ..SessionDetail::default()
            };
        };
        session.find_troubles(&mut troubles);
        let count =
            |is: fn(&QueueView) -> bool| session.queues.iter().filter(|queue| is(queue)).count() as u32;
        SessionDetail {
            features: features::names(session.features),
            protocol_features: features::protocol_names(session.protocol),
            regions: session.regions as u32,
            memory: session.memory,
            queues_set_up: count(|queue| queue.is_set_up),
            queues_running: count(|queue| queue.is_running),
            troubles,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Posted> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionView {
    fn find_troubles(&self, troubles: &mut Vec<Failure>) {
        for (index, queue) in self.queues.iter().enumerate() {
            if let Some(broken) = queue.health.broken.get() {
                let text =
                    format!("queue {index}: {broken}; it stops until the guest's driver sets it up anew");
                troubles.push(Failure::new(code::QUEUE_BROKEN, text));
            }
            if queue.is_running && queue.health.unrecorded.load(Ordering::Relaxed) {
                let text = format!(
                    "queue {index}: what is in flight is not noted, for the frontend's memory for it is too small: if the \
                     serving process dies, that is lost"
                );
                troubles.push(Failure::new(code::NOT_RECORDED, text));
            }
        }
        if self.queues.iter().any(|queue| queue.is_outside) {
            troubles.push(outside(self.features, self.regions));
        }
        let running = || self.queues.iter().filter(|queue| queue.is_running);
        let served = |queue: &QueueView| queue.health.has_served.load(Ordering::Relaxed);
        let kicked = |queue: &QueueView| queue.health.idle_kicks.load(Ordering::Relaxed) >= SUSPICIOUS_KICKS;
        if running().any(kicked) && !running().any(served) {
            let text = format!(
                "the guest has rung, and nothing is in its queues: perhaps its memory is private; {SHARE}"
            );
            troubles.push(Failure::new(code::MEMORY_NOT_SHARED, text));
        }
    }
}

/// Rings that are in no memory region, of a driver that has acknowledged `features`.
pub(super) fn outside(features: u64, regions: usize) -> Failure {
    if features::has_platform_addresses(features) {
        return translated();
    }
    let what = match regions {
        0 => "the machine's memory is not shared".to_owned(),
        1 => "the guest's queues are not in the one region of memory that is shared".to_owned(),
        _ => format!("the guest's queues are in none of the {regions} regions of memory that are shared"),
    };
    Failure::new(code::MEMORY_NOT_SHARED, format!("{what}: {SHARE}"))
}

/// Addresses that a vIOMMU would have to translate.
pub(super) fn translated() -> Failure {
    let text = "the guest's addresses are a vIOMMU's, and are not translated here: take iommu_platform=on from the disk, or the \
                vIOMMU from the machine";
    Failure::new(code::ADDRESSES_TRANSLATED, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> SessionView {
        let queue = || QueueView {
            is_set_up: true,
            is_outside: false,
            is_running: true,
            health: Arc::default(),
        };
        SessionView {
            features: 1 << 32 | 1 << 9,
            protocol: 1 << 3,
            regions: 2,
            memory: 4096,
            queues: vec![queue(), queue()],
        }
    }

    fn codes(board: &Board) -> Vec<String> {
        let troubles = board.detail().troubles;
        troubles.into_iter().map(|trouble| trouble.code).collect()
    }

    #[test]
    fn what_is_set_up_is_told() {
        let board = Board::default();
        assert_eq!(board.detail(), SessionDetail::default());
        let mut session = view();
        session.queues[1].is_running = false;
        board.post(session);
        let expected = SessionDetail {
            features: vec!["FLUSH".to_owned(), "VERSION_1".to_owned()],
            protocol_features: vec!["REPLY_ACK".to_owned()],
            regions: 2,
            memory: 4096,
            queues_set_up: 2,
            queues_running: 1,
            troubles: Vec::new(),
        };
        assert_eq!(board.detail(), expected);
        board.clear();
        assert_eq!(board.detail(), SessionDetail::default());
    }

    #[test]
    fn each_trouble_is_told() {
        let board = Board::default();
        let session = view();
        let health = session.queues[1].health.clone();
        board.post(session);
        health.note_unrecorded();
        assert_eq!(codes(&board), [code::NOT_RECORDED]);
        health.note_broken(RingBroken::Head);
        health.note_broken(RingBroken::Size);
        assert_eq!(codes(&board), [code::QUEUE_BROKEN, code::NOT_RECORDED]);
        let told = &board.detail().troubles[0].message;
        assert!(
            told.starts_with("queue 1: ") && told.contains("beyond the table"),
            "{told}"
        );
        let mut session = view();
        session.queues[0].is_outside = true;
        board.post(session.clone());
        assert_eq!(codes(&board), [code::MEMORY_NOT_SHARED]);
        session.features |= 1 << 33;
        board.post(session);
        assert_eq!(codes(&board), [code::ADDRESSES_TRANSLATED]);
    }

    #[test]
    fn kicks_for_nothing_are_suspicious_while_nothing_was_ever_there() {
        let board = Board::default();
        let session = view();
        let [first, second] = [0, 1].map(|queue: usize| session.queues[queue].health.clone());
        board.post(session);
        first.note_kick(false);
        second.note_kick(false);
        assert!(codes(&board).is_empty(), "QEMU's own");
        first.note_kick(false);
        assert_eq!(codes(&board), [code::MEMORY_NOT_SHARED]);
        second.note_kick(true);
        assert!(codes(&board).is_empty());
    }

    #[test]
    fn a_refusal_is_told_until_a_queue_runs() {
        let board = Board::default();
        board.refuse(outside(0, 0));
        board.clear();
        assert_eq!(codes(&board), [code::MEMORY_NOT_SHARED]);
        let mut session = view();
        for queue in &mut session.queues {
            queue.is_running = false;
        }
        board.post(session);
        assert_eq!(codes(&board), [code::MEMORY_NOT_SHARED]);
        board.post(view());
        assert!(codes(&board).is_empty());
    }
}
