//! What a virtqueue's thread does: takes chains, moves data between guest and store, completes chains.
//!
//! It waits in one place, its io_uring, for the store, for the guest's kick and for orders. At most as many
//! requests are in flight as the queue has entries; their data passes through a fixed pool of private buffers, and
//! requests that find it empty wait their turn.

mod changes;
mod flush;
mod held;
mod polling;
mod requests;
mod slab;
#[cfg(test)]
mod tests;
mod transfers;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use sealblk_proto::locked::lock_this_stack;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use changes::{Batch, Composition};
use flush::Flushes;
use held::Held;
use polling::Polling;
use requests::InFlight;
use slab::Slab;
use transfers::Transfer;

use super::inflight::InflightTable;
use super::memory::MappedMemory;
use super::rate_limit::EventLimits;
use super::status::QueueHealth;
use super::tuning::Tuning;
use super::vring::DriverFeatures;
use crate::barrier::{Barrier, Membership};
use crate::disk::Disk;
use crate::io::{Crew, Engine, Event, Hired, Interrupter, lock};
use crate::limits::{BUFFER_BYTES, MAX_WAITING_BYTES};
use crate::virtqueue::{Ring, RingBroken, RingSetup, Scratch};

const WATCH_KICK: u64 = 0;
const WATCH_WAKE: u64 = 1;
/// Tag of a sync. Tags of transfers: their index.
const SYNC: u64 = u64::MAX;

/// What a worker serves.
pub(super) struct WorkerSetup {
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

/// A queue cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("the queue is unusable")]
    Ring(#[from] RingBroken),
    #[error("all threads of the process have a queue")]
    NoThread,
    #[error("the queue's thread or io_uring cannot be set up")]
    Io(#[from] io::Error),
}

/// A running worker. It must be stopped before guest memory goes.
pub(super) struct WorkerHandle {
    thread: Hired,
    /// Tells the next entry of the available ring when the worker has ended.
    ended: Receiver<u16>,
    stop: Arc<AtomicBool>,
    wake: Arc<EventFd>,
}

impl WorkerHandle {
    /// Sets everything up and gives it to a thread. Interrupts go to `call`.
    pub(super) fn start(mut setup: WorkerSetup, call: Option<&File>) -> Result<Self, StartError> {
        let thread = setup.crew.hire().ok_or(StartError::NoThread)?;
        lock(thread.interrupter()).set(call)?;
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let stop = Arc::new(AtomicBool::new(false));
        let record = setup
            .inflight
            .as_ref()
            .and_then(|table| table.record(setup.index));
        let ring = Ring::new(&setup.ring, setup.memory.guest(), record)?;
        if setup.inflight.as_ref().is_some_and(|table| table.has_faulted()) {
            return Err(RingBroken::Inflight.into());
        }
        if setup.inflight.is_some() && !ring.is_recorded() {
            setup.health.note_unrecorded();
            tell_unrecorded(setup.index, ring.size(), &setup.limits);
            setup.inflight = None;
        }
        let membership = setup.barrier.join(&wake)?;
        let interrupter = thread.interrupter().clone();
        let (stopped, woken) = (stop.clone(), wake.clone());
        let (begun, beginning) = sync_channel(1);
        let (end, ended) = sync_channel(1);
        // Each receiver waits for just this.
        thread.give(move |mut engine| {
            if let Err(error) = setup.prepare_thread(&mut engine) {
                let _ = begun.send(Err(error));
                return engine;
            }
            let _ = begun.send(Ok(()));
            let worker = Worker::new(setup, ring, engine, interrupter, membership, stopped, woken);
            let (engine, next_available) = worker.run();
            let _ = end.send(next_available);
            engine
        });
        let handle = WorkerHandle {
            thread,
            ended,
            stop,
            wake,
        };
        match beginning.recv() {
            Ok(begun) => begun.map(|()| handle).map_err(StartError::Io),
            Err(_) => handle.panic(),
        }
    }

    /// Interrupts go to `call` from now on. There is one at once: the driver may have waited for it meanwhile.
    ///
    /// # Errors
    /// The kernel's; then there are none from now on.
    pub(super) fn set_call(&self, call: Option<&File>) -> io::Result<()> {
        let mut interrupter = lock(self.thread.interrupter());
        interrupter.set(call)?;
        interrupter.signal()
    }

    /// Lets the worker finish what it has taken, and ends it. Returns the next entry of the available ring.
    /// Afterwards nothing here touches guest memory.
    pub(super) fn stop(self) -> u16 {
        self.stop.store(true, Ordering::SeqCst);
        // Fails only when the counter is full, and then the worker is being woken already.
        let _ = self.wake.write(1);
        match self.ended.recv() {
            Ok(next_available) => next_available,
            Err(_) => self.panic(),
        }
    }

    /// The thread has ended without a word.
    fn panic(self) -> ! {
        match self.thread.panic() {
            Some(panic) => std::panic::resume_unwind(panic),
            None => unreachable!("a thread ends by a panic only while it has work"),
        }
    }
}

impl WorkerSetup {
    /// To be called by the thread that is to serve the queue.
    fn prepare_thread(&self, engine: &mut Engine) -> io::Result<()> {
        self.tuning.pin(self.place)?;
        lock_this_stack()?;
        engine.equip(BUFFER_BYTES, self.disk.store().files())
    }
}

struct Worker {
    setup: WorkerSetup,
    ring: Ring,
    /// Where it began.
    first_available: u16,
    engine: Engine,
    interrupter: Arc<Mutex<Interrupter>>,
    membership: Membership,
    stop: Arc<AtomicBool>,
    wake: Arc<EventFd>,
    requests: Vec<InFlight>,
    transfers: Slab<Transfer>,
    compositions: Slab<Composition>,
    batch: Batch,
    /// Heads of requests not all of whose parts are started, oldest first.
    waiting: VecDeque<u16>,
    /// Heads of those that the store has told to wait, oldest first; it will write to `wake`.
    aside: Vec<u16>,
    held: Held,
    /// Bytes of all of these that have not been started.
    waiting_bytes: u64,
    flushes: Flushes,
    polling: Polling,
    /// Where the driver cannot flush, a write must be durable when it is answered. On a thin store a write that is durable
    /// itself may lie in a place that is not: everything is flushed.
    flush_before_answer: bool,
    scratch: Scratch,
    broken: bool,
    to_notify: bool,
    kicked: bool,
}

impl Worker {
    fn new(
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
            flush_before_answer: !setup.driver.flush && setup.disk.store().is_thin(),
            scratch: Scratch::default(),
            broken: false,
            to_notify: false,
            kicked: false,
            setup,
        }
    }

    /// Serves the queue until it is stopped. Afterwards nothing here touches guest memory. Returns the next entry of the
    /// available ring.
    fn run(mut self) -> (Engine, u16) {
        if let Err(error) = self.serve() {
            // Without its io_uring the worker cannot even drain. The supervisor starts a new process.
            log::error!("queue {}: the worker cannot go on: {error}", self.setup.index);
            crate::logging::abort();
        }
        let next_available = self.ring.next_available();
        (self.engine, next_available)
    }

    fn serve(&mut self) -> io::Result<()> {
        self.engine.watch(&self.setup.kick, WATCH_KICK)?;
        self.engine.watch(&*self.wake, WATCH_WAKE)?;
        // The predecessor may have completed chains and not come to the interrupt. Whether the driver waits for it
        // cannot be told from the ring.
        lock(&self.interrupter).signal()?;
        loop {
            self.commit();
            // Before more is begun: the driver can offer more meanwhile.
            self.notify()?;
            let stopping = self.stop.load(Ordering::SeqCst);
            let resting = self.membership.must_rest();
            let more_chains = !resting && self.take_chains(stopping);
            if !resting && std::mem::take(&mut self.kicked) {
                let found = self.ring.next_available() != self.first_available;
                self.setup.health.note_kick(found);
            }
            let more_parts = self.start_parts()?;
            self.start_flush()?;
            self.notify()?;
            if self.is_idle() {
                // What a predecessor has taken counts as taken, unless it must wait: then it stays noted.
                if stopping && (resting || self.broken || !self.ring.has_left()) {
                    self.leave_held()?;
                    return self.engine.end_watches();
                }
                if resting {
                    self.membership.rest();
                }
            }
            if more_chains || more_parts {
                self.engine.submit()?;
            } else {
                // Others are not taken before these have been started.
                let can_come = !stopping && !resting && self.waiting.is_empty();
                self.wait(can_come)?;
            }
            while let Some(event) = self.engine.next_event()? {
                match event {
                    Event::Completed(completion) => self.completed(completion)?,
                    Event::Readable(WATCH_WAKE) => {
                        let _ = self.wake.read();
                        self.retry_aside();
                        self.retry_held();
                    }
                    // Chains are taken in each round.
                    Event::Readable(_) => self.kicked = true,
                }
                if self.engine.has_told_enough() {
                    break;
                }
            }
        }
    }

    /// Nothing in flight, as far as it can still end; what is held is in nobody's way.
    fn is_idle(&self) -> bool {
        self.engine.pending() == 0
            && self.waiting.is_empty()
            && self.aside.is_empty()
            && self.compositions.is_empty()
            && self.batch.is_empty()
            && self.flushes.is_empty()
    }

    /// Takes at most a queue full of chains; when `stopping` only those that a predecessor had in flight. Returns whether
    /// there may be more.
    fn take_chains(&mut self, stopping: bool) -> bool {
        let taken = if stopping {
            Ok(self.take_left())
        } else {
            self.try_take_chains()
        };
        match taken {
            Ok(more) => more,
            Err(error) => {
                self.break_ring(error);
                false
            }
        }
    }

    fn take_left(&mut self) -> bool {
        let memory = self.setup.memory.clone();
        while !self.broken && self.waiting_bytes <= MAX_WAITING_BYTES {
            let Some((token, chain)) = self.ring.take_left(memory.guest()) else {
                break;
            };
            self.begin(token, chain, memory.guest());
        }
        false
    }

    fn try_take_chains(&mut self) -> Result<bool, RingBroken> {
        if self.broken {
            return Ok(false);
        }
        let memory = self.setup.memory.clone();
        self.ring.disable_notification(memory.guest())?;
        for _ in 0..self.ring.size() {
            // The rest is taken when some of this has ended.
            if self.waiting_bytes > MAX_WAITING_BYTES {
                return Ok(false);
            }
            let Some((token, chain)) = self.ring.take(memory.guest())? else {
                return self.ring.enable_notification(memory.guest());
            };
            self.begin(token, chain, memory.guest());
            if self.broken {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn notify(&mut self) -> io::Result<()> {
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
    fn break_ring(&mut self, error: RingBroken) {
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

/// Says that a queue is broken, to whom it may concern.
pub(super) fn tell_broken(
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
fn tell_unrecorded(queue: usize, size: u16, limits: &EventLimits) {
    limits.records.log(|before| {
        log::warn!(
            "queue {queue}: the memory for chains in flight has no room for {size} entries: none is noted ({before} such before)"
        );
    });
}
