//! A worker: the queue that it serves, and what it has under way. Its methods are in the files that use this one.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

use super::flushes::Flushes;
use super::in_flight::{Held, InFlight};
use super::polling::Polling;
use super::slab::Slab;
use super::transfer::{Batch, Composition, Transfer};
use crate::barrier::{Barrier, Membership};
use crate::disk::Disk;
use crate::io::{Crew, Engine, Interrupter, lock};
use crate::vhost::features::DriverFeatures;
use crate::vhost::inflight::InflightTable;
use crate::vhost::memory::MappedMemory;
use crate::vhost::rate_limit::EventLimits;
use crate::vhost::status::QueueHealth;
use crate::vhost::tuning::Tuning;
use crate::virtqueue::{Ring, RingBroken, RingSetup, Scratch};

/// What a worker serves.
pub(in crate::vhost) struct WorkerSetup {
    pub index: usize,
    pub health: Arc<QueueHealth>,
    pub ring: RingSetup,
    pub memory: Arc<MappedMemory>,
    /// Where to note what is in flight, if anywhere.
    pub inflight: Option<Arc<InflightTable>>,
    pub kick: File,
    pub error: Option<File>,
    pub crew: Arc<Crew>,
    pub disk: Arc<Disk>,
    pub barrier: Arc<Barrier>,
    pub limits: Arc<EventLimits>,
    pub tuning: Arc<Tuning>,
    /// Writes are refused.
    pub read_only: bool,
    /// Which of the disk's queues it is, of all sessions.
    pub place: usize,
    pub driver: DriverFeatures,
}

/// The one that serves a queue. It runs in one thread.
pub(super) struct Worker {
    pub(super) setup: WorkerSetup,
    pub(super) ring: Ring,
    /// Where it began.
    pub(super) first_available: u16,
    pub(super) engine: Engine,
    pub(super) interrupter: Arc<Mutex<Interrupter>>,
    pub(super) membership: Membership,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) wake: Arc<EventFd>,
    pub(super) requests: Vec<InFlight>,
    pub(super) transfers: Slab<Transfer>,
    pub(super) compositions: Slab<Composition>,
    pub(super) batch: Batch,
    /// Heads of requests not all of whose parts are started, oldest first.
    pub(super) waiting: VecDeque<u16>,
    /// Heads of those that the store has told to wait, oldest first; it will write to `wake`.
    pub(super) aside: Vec<u16>,
    pub(super) held: Held,
    /// Bytes of all of these that have not been started.
    pub(super) waiting_bytes: u64,
    pub(super) flushes: Flushes,
    pub(super) polling: Polling,
    /// Where the driver cannot flush, a write must be durable when it is answered. On a layered store a write that is durable
    /// itself may lie in a place that is not: everything is flushed.
    pub(super) flush_before_answer: bool,
    pub(super) scratch: Scratch,
    pub(super) broken: bool,
    pub(super) to_notify: bool,
    pub(super) kicked: bool,
}

impl Worker {
    pub(super) fn new(
        setup: WorkerSetup,
        ring: Ring,
        engine: Engine,
        interrupter: Arc<Mutex<Interrupter>>,
        membership: Membership,
        stop: Arc<AtomicBool>,
        wake: Arc<EventFd>,
    ) -> Self {
        Worker {
            requests: (0..ring.size()).map(|_| InFlight::default()).collect(),
            first_available: ring.next_available(),
            ring,
            engine,
            interrupter,
            membership,
            stop,
            wake,
            transfers: Slab::default(),
            compositions: Slab::default(),
            batch: Batch::default(),
            waiting: VecDeque::new(),
            aside: Vec::new(),
            held: Held::default(),
            waiting_bytes: 0,
            flushes: Flushes::default(),
            polling: Polling::new(setup.tuning.poll),
            flush_before_answer: !setup.driver.flush && setup.disk.store().is_layered(),
            scratch: Scratch::default(),
            broken: false,
            to_notify: false,
            kicked: false,
            setup,
        }
    }

    pub(super) fn notify(&mut self) -> io::Result<()> {
        if self.broken || !std::mem::take(&mut self.to_notify) {
            return Ok(());
        }
        match self.ring.needs_notification(self.setup.memory.guest()) {
            Ok(true) => return lock(&self.interrupter).signal(),
            Ok(false) => {}
            Err(error) => self.break_ring(error),
        }
        Ok(())
    }

    /// The driver's fault, and the end of this queue until the frontend sets it up anew.
    pub(super) fn break_ring(&mut self, error: RingBroken) {
        if !std::mem::replace(&mut self.broken, true) {
            let setup = &self.setup;
            setup.health.note_broken(error);
            tell_broken(
                setup.index,
                error,
                setup.error.as_ref(),
                &setup.limits,
                &setup.crew,
            );
        }
    }
}

/// Says that a queue is broken: in the log, and to the frontend by its error descriptor.
pub(in crate::vhost) fn tell_broken(
    queue: usize,
    error: RingBroken,
    descriptor: Option<&File>,
    limits: &EventLimits,
    crew: &Crew,
) {
    limits.rings.log(|before| {
        log::warn!("queue {queue}: {error}; it stops until it is set up anew ({before} such before)");
    });
    if let Some(descriptor) = descriptor
        && let Err(error) = crew.interrupt(descriptor)
    {
        log::debug!("queue {queue}: the frontend is not told that it is broken: {error}");
    }
}

/// Says that a queue is served without a record, so that what is in flight is lost, or done twice, if the process dies.
pub(super) fn tell_unrecorded(queue: usize, size: u16, limits: &EventLimits) {
    limits.records.log(|before| {
        log::warn!(
            "queue {queue}: the memory for chains in flight has no room for {size} entries: none is noted ({before} such before)"
        );
    });
}
