//! One virtqueue's thread: takes chains, moves data between guest and store, completes chains.
//!
//! It waits in one place, its io_uring, for the store, for the guest's kick and for orders. At most as many
//! requests are in flight as the queue has entries; their data passes through a fixed pool of private buffers, and
//! requests that find it empty wait their turn.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use sealblk_proto::locked::lock_this_stack;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::memory::MappedMemory;
use super::rate_limit::EventLimits;
use crate::barrier::{Barrier, Membership};
use crate::disk::{Disk, SERIAL_BYTES};
use crate::io::{Buffer, Completion, Engine, Event};
use crate::limits::{BUFFER_BYTES, MAX_ATTEMPTS, MAX_TRANSFER_BYTES, MAX_WAITING_BYTES, WORKER_STACK_BYTES};
use crate::units::{SECTOR_BYTES, SectorRange};
use crate::virtqueue::{Cursor, Operation, Request, Ring, RingBroken, RingSetup, Scratch, Status, Token};

const WATCH_KICK: u64 = 0;
const WATCH_WAKE: u64 = 1;
/// Tag of a sync. Tags of transfers: their index.
const SYNC: u64 = u64::MAX;

/// The call descriptor, which the frontend may replace while the queue runs.
pub(super) type CallSlot = Arc<Mutex<Option<File>>>;

/// What a worker serves.
pub(super) struct WorkerSetup {
    pub index: usize,
    pub ring: RingSetup,
    pub memory: Arc<MappedMemory>,
    pub kick: File,
    pub call: CallSlot,
    pub error: Option<File>,
    pub disk: Arc<Disk>,
    pub barrier: Arc<Barrier>,
    pub limits: Arc<EventLimits>,
    /// Writes are durable when they are answered.
    pub write_through: bool,
}

/// A queue cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("the queue is unusable")]
    Ring(#[from] RingBroken),
    #[error("the queue's thread or io_uring cannot be set up")]
    Io(#[from] io::Error),
}

/// A running worker. It must be stopped before guest memory goes.
#[derive(Debug)]
pub(super) struct WorkerHandle {
    thread: JoinHandle<u16>,
    stop: Arc<AtomicBool>,
    wake: Arc<EventFd>,
}

impl WorkerHandle {
    /// Sets everything up and starts the thread.
    pub(super) fn start(setup: WorkerSetup) -> Result<Self, StartError> {
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let stop = Arc::new(AtomicBool::new(false));
        set_nonblocking(&setup.kick)?;
        let ring = Ring::new(&setup.ring, setup.memory.guest())?;
        let worker = Worker {
            slots: (0..ring.size()).map(|_| Slot::default()).collect(),
            ring,
            engine: Engine::new(BUFFER_BYTES)?,
            membership: setup.barrier.join(&wake)?,
            stop: stop.clone(),
            wake: wake.clone(),
            transfers: Vec::new(),
            vacant_transfers: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            flushes: Vec::new(),
            syncing: Vec::new(),
            scratch: Scratch::default(),
            broken: false,
            to_notify: false,
            setup,
        };
        let name = format!("queue-{}", worker.setup.index);
        let thread = std::thread::Builder::new()
            .name(name)
            .stack_size(WORKER_STACK_BYTES);
        let (sender, locked) = std::sync::mpsc::sync_channel(1);
        let thread = thread.spawn(move || {
            let outcome = lock_this_stack();
            let usable = outcome.is_ok();
            // The receiver waits for just this.
            let _ = sender.send(outcome);
            if usable { worker.run() } else { 0 }
        })?;
        locked.recv().map_err(io::Error::other)??;
        Ok(WorkerHandle { thread, stop, wake })
    }

    /// Lets the worker finish what it has taken, and ends it. Returns the next entry of the available ring.
    /// Afterwards nothing here touches guest memory.
    pub(super) fn stop(self) -> u16 {
        self.stop.store(true, Ordering::SeqCst);
        // Fails only when the counter is full, and then the worker is being woken already.
        let _ = self.wake.write(1);
        match self.thread.join() {
            Ok(next_available) => next_available,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// A request in flight; one slot for each possible head.
#[derive(Default)]
struct Slot {
    token: Option<Token>,
    request: Request,
    /// Of a read or write.
    range: Option<SectorRange>,
    /// Sectors for which a transfer was started, and where in the guest's buffers they end.
    started: u64,
    cursor: Cursor,
    outstanding: u32,
    failed: bool,
    /// It is in `waiting`.
    queued: bool,
}

/// A part of a request on its way to or from the store.
struct Transfer {
    head: u16,
    range: SectorRange,
    /// Where in the guest's buffers a read goes.
    cursor: Cursor,
    is_write: bool,
    attempts: u32,
}

struct Worker {
    setup: WorkerSetup,
    ring: Ring,
    engine: Engine,
    membership: Membership,
    stop: Arc<AtomicBool>,
    wake: Arc<EventFd>,
    slots: Vec<Slot>,
    transfers: Vec<Option<Transfer>>,
    vacant_transfers: Vec<usize>,
    /// Heads of reads and writes not all of whose transfers are started, oldest first.
    waiting: VecDeque<u16>,
    /// Bytes of theirs that have not been started.
    waiting_bytes: u64,
    /// Heads of flushes that no sync has been started for.
    flushes: Vec<u16>,
    /// Heads of flushes that the present sync answers.
    syncing: Vec<u16>,
    scratch: Scratch,
    broken: bool,
    to_notify: bool,
}

impl Worker {
    fn run(mut self) -> u16 {
        if let Err(error) = self.serve() {
            // Without its io_uring the worker cannot even drain. The supervisor starts a new process.
            log::error!("queue {}: the worker cannot go on: {error}", self.setup.index);
            std::process::abort();
        }
        self.ring.next_available()
    }

    fn serve(&mut self) -> io::Result<()> {
        self.engine.watch(&self.setup.kick, WATCH_KICK)?;
        self.engine.watch(&*self.wake, WATCH_WAKE)?;
        // The predecessor may have completed chains and not come to the interrupt. Whether the driver waits for it
        // cannot be told from the ring.
        signal(&self.setup.call);
        loop {
            let stopping = self.stop.load(Ordering::SeqCst);
            let resting = self.membership.must_rest();
            let more = !stopping && !resting && self.take_chains()?;
            self.start_transfers()?;
            self.start_sync()?;
            self.notify();
            if self.is_idle() {
                if stopping {
                    return Ok(());
                }
                if resting {
                    self.membership.rest();
                }
            }
            if more {
                self.engine.submit()?
            } else {
                self.engine.submit_and_wait()?
            }
            while let Some(event) = self.engine.next_event() {
                match event {
                    Event::Completed(completion) => self.completed(completion)?,
                    Event::Readable(WATCH_WAKE) => {
                        let _ = self.wake.read();
                        self.engine.watch(&*self.wake, WATCH_WAKE)?;
                    }
                    Event::Readable(_) => self.kicked()?,
                }
            }
        }
    }

    /// Nothing in flight, as far as it can still end.
    fn is_idle(&self) -> bool {
        self.engine.pending() == 0 && self.waiting.is_empty() && self.flushes.is_empty()
    }

    fn kicked(&mut self) -> io::Result<()> {
        let mut counter = [0; 8];
        match (&self.setup.kick).read(&mut counter) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Not an eventfd. Watching it again would spin.
            Ok(_) | Err(_) => {
                log::warn!("queue {}: the kick descriptor is no eventfd", self.setup.index);
                return Ok(());
            }
        }
        self.engine.watch(&self.setup.kick, WATCH_KICK)
    }

    /// Takes at most a queue full of chains. Returns whether there may be more.
    fn take_chains(&mut self) -> io::Result<bool> {
        if self.broken {
            return Ok(false);
        }
        match self.try_take_chains()? {
            Ok(more) => Ok(more && !self.broken),
            Err(error) => {
                self.break_ring(error);
                Ok(false)
            }
        }
    }

    fn try_take_chains(&mut self) -> io::Result<Result<bool, RingBroken>> {
        let memory = self.setup.memory.clone();
        if let Err(error) = self.ring.disable_notification(memory.guest()) {
            return Ok(Err(error));
        }
        for _ in 0..self.ring.size() {
            // The rest is taken when some of this has ended.
            if self.waiting_bytes > MAX_WAITING_BYTES {
                return Ok(Ok(false));
            }
            match self.ring.take(memory.guest()) {
                Ok(Some((token, chain))) => {
                    let head = token.head();
                    let disk = &self.setup.disk;
                    let slot = &mut self.slots[usize::from(head)];
                    let parsed = slot.request.parse(
                        &mut self.scratch,
                        chain,
                        memory.guest(),
                        disk.capacity(),
                        disk.is_read_only(),
                    );
                    slot.token = Some(token);
                    match parsed {
                        Ok(()) => self.begin(head)?,
                        Err(error) => {
                            let queue = self.setup.index;
                            let log = |before| log::warn!("queue {queue}: {error} ({before} such before)");
                            self.setup.limits.chains.log(log);
                            self.complete(head, 0);
                        }
                    }
                }
                Ok(None) => return Ok(self.ring.enable_notification(memory.guest())),
                Err(error) => return Ok(Err(error)),
            }
            if self.broken {
                return Ok(Ok(false));
            }
        }
        Ok(Ok(true))
    }

    /// Starts a parsed request.
    fn begin(&mut self, head: u16) -> io::Result<()> {
        let disk = self.setup.disk.clone();
        let slot = &mut self.slots[usize::from(head)];
        slot.range = None;
        slot.failed = false;
        match slot.request.operation {
            Operation::Answer(status) => self.answer(head, status, 0),
            Operation::GetId => {
                let len = slot.request.data.len().min(SERIAL_BYTES as u64) as usize;
                let memory = self.setup.memory.guest();
                let written = slot
                    .request
                    .data
                    .write(memory, &mut Cursor::default(), &disk.serial()[..len]);
                match written {
                    Ok(()) => self.answer(head, Status::Ok, len as u32),
                    Err(_) => self.answer(head, Status::IoError, 0),
                }
            }
            _ if disk.is_poisoned() => self.answer(head, Status::IoError, 0),
            Operation::Flush => self.flushes.push(head),
            Operation::Read(range) | Operation::Write(range) => {
                slot.range = Some(range);
                slot.started = 0;
                slot.outstanding = 0;
                slot.cursor = Cursor::default();
                if range.count() == 0 {
                    self.finish_transfers(head);
                } else {
                    slot.queued = true;
                    self.waiting_bytes += range.bytes().0;
                    self.waiting.push_back(head);
                }
            }
        }
        Ok(())
    }

    /// Starts transfers of the oldest requests while there are buffers.
    fn start_transfers(&mut self) -> io::Result<()> {
        while let Some(&head) = self.waiting.front() {
            let slot = &self.slots[usize::from(head)];
            let range = slot.range.expect("a waiting request is a read or write");
            let slot_started = slot.started;
            if slot_started == range.count() || slot.failed {
                self.waiting.pop_front();
                self.slots[usize::from(head)].queued = false;
                self.waiting_bytes -= range.part(slot_started, u64::MAX).bytes().0;
                if self.slots[usize::from(head)].outstanding == 0 {
                    self.finish_transfers(head);
                }
                continue;
            }
            let rest = range.part(slot_started, (MAX_TRANSFER_BYTES / SECTOR_BYTES) as u64);
            let Some(buffer) = self.engine.allocate(rest.bytes().0 as usize) else {
                return Ok(());
            };
            let part = rest.part(0, (buffer.len() / SECTOR_BYTES) as u64);
            self.start_transfer(head, part, buffer)?;
        }
        Ok(())
    }

    fn start_transfer(&mut self, head: u16, part: SectorRange, mut buffer: Buffer) -> io::Result<()> {
        let disk = self.setup.disk.clone();
        let memory = &self.setup.memory;
        let slot = &mut self.slots[usize::from(head)];
        let is_write = matches!(slot.request.operation, Operation::Write(_));
        let begins_at = slot.cursor;
        let bytes = self.engine.bytes_mut(&mut buffer);
        let prepared = if is_write {
            let copied = slot.request.data.read(memory.guest(), &mut slot.cursor, bytes);
            // If memory was lost during the copy, part of it is zeros that the guest never wrote.
            copied.is_ok() && !memory.has_faulted() && disk.seal(part, bytes).is_ok()
        } else {
            slot.request.data.skip(&mut slot.cursor, bytes.len()).is_ok()
        };
        if !prepared {
            slot.failed = true;
            self.engine.free(buffer);
            return Ok(());
        }
        slot.started += part.count();
        self.waiting_bytes -= part.bytes().0;
        slot.outstanding += 1;
        let transfer = Transfer {
            head,
            range: part,
            cursor: begins_at,
            is_write,
            attempts: 0,
        };
        let tag = self.keep(transfer);
        self.submit_transfer(tag, buffer)
    }

    fn submit_transfer(&mut self, tag: usize, buffer: Buffer) -> io::Result<()> {
        let transfer = self.transfers[tag].as_ref().expect("kept until it has ended");
        let store = self.setup.disk.store();
        let offset = store.offset(transfer.range);
        if transfer.is_write {
            self.engine
                .write(store.file(), offset, buffer, self.setup.write_through, tag as u64)
        } else {
            self.engine.read(store.file(), offset, buffer, tag as u64)
        }
    }

    fn keep(&mut self, transfer: Transfer) -> usize {
        match self.vacant_transfers.pop() {
            Some(index) => {
                self.transfers[index] = Some(transfer);
                index
            }
            None => {
                self.transfers.push(Some(transfer));
                self.transfers.len() - 1
            }
        }
    }

    fn completed(&mut self, completion: Completion) -> io::Result<()> {
        let Completion { tag, buffer, result } = completion;
        let Some(buffer) = buffer else {
            self.sync_ended(result);
            return Ok(());
        };
        let slot = &mut self.transfers[tag as usize];
        let mut transfer = slot.take().expect("kept until it has ended");
        let interrupted = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
            )
        };
        if result.as_ref().is_err_and(interrupted) && transfer.attempts < MAX_ATTEMPTS {
            transfer.attempts += 1;
            *slot = Some(transfer);
            return self.submit_transfer(tag as usize, buffer);
        }
        self.vacant_transfers.push(tag as usize);
        self.transfer_ended(&transfer, buffer, result);
        Ok(())
    }

    fn transfer_ended(&mut self, transfer: &Transfer, mut buffer: Buffer, result: io::Result<usize>) {
        let whole = buffer.len();
        let bytes = self.engine.bytes_mut(&mut buffer);
        let slot = &mut self.slots[usize::from(transfer.head)];
        let done = match result {
            Ok(len) if len == whole && transfer.is_write => true,
            Ok(len) if len == whole => {
                let mut cursor = transfer.cursor;
                self.setup.disk.open(transfer.range, bytes).is_ok()
                    && slot
                        .request
                        .data
                        .write(self.setup.memory.guest(), &mut cursor, bytes)
                        .is_ok()
            }
            outcome => {
                let what = if transfer.is_write { "write" } else { "read" };
                let (queue, range) = (self.setup.index, transfer.range);
                let error = outcome.map_or_else(|error| error.to_string(), |len| format!("only {len} bytes"));
                self.setup.limits.store.log(|before| {
                    log::error!("queue {queue}: {what} of {range}: {error} ({before} errors before)");
                });
                false
            }
        };
        self.engine.free(buffer);
        slot.failed |= !done;
        slot.outstanding -= 1;
        // One that is still queued is finished when its turn comes.
        if slot.outstanding == 0 && !slot.queued {
            self.finish_transfers(transfer.head);
        }
    }

    /// Starts one sync for all flushes that have come, when no other queue is syncing.
    fn start_sync(&mut self) -> io::Result<()> {
        if self.flushes.is_empty() || !self.syncing.is_empty() {
            return Ok(());
        }
        let disk = self.setup.disk.clone();
        if !disk.try_begin_sync(&self.wake) {
            return Ok(());
        }
        std::mem::swap(&mut self.flushes, &mut self.syncing);
        if disk.is_poisoned() {
            // Without asking the kernel, which would say that all is well.
            self.sync_ended(Err(io::Error::other("the disk is poisoned")));
            return Ok(());
        }
        self.engine.sync(disk.store().file(), SYNC)
    }

    fn sync_ended(&mut self, result: io::Result<usize>) {
        let result = result.map(|_| ());
        self.setup.disk.end_sync(&result);
        let status = if result.is_ok() {
            Status::Ok
        } else {
            Status::IoError
        };
        let mut answered = std::mem::take(&mut self.syncing);
        for head in answered.drain(..) {
            self.answer(head, status, 0);
        }
        self.syncing = answered;
    }

    fn finish_transfers(&mut self, head: u16) {
        let slot = &self.slots[usize::from(head)];
        let is_read = matches!(slot.request.operation, Operation::Read(_));
        match (slot.failed, slot.range) {
            // Read data fits a u32, as the used length does: a chain's buffers are at most 2³² bytes.
            (false, Some(range)) if is_read => self.answer(head, Status::Ok, range.bytes().0 as u32),
            (false, _) => self.answer(head, Status::Ok, 0),
            (true, _) => self.answer(head, Status::IoError, 0),
        }
    }

    /// Completes a request; `data` is the number of data bytes written to the guest.
    fn answer(&mut self, head: u16, status: Status, data: u32) {
        let slot = &self.slots[usize::from(head)];
        self.count(slot, status);
        let used_len = slot.request.write_status(self.setup.memory.guest(), status, data);
        self.complete(head, used_len);
    }

    fn count(&self, slot: &Slot, status: Status) {
        let counters = self.setup.disk.counters();
        let one = |counter: &std::sync::atomic::AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match (status, slot.request.operation) {
            (Status::Ok, Operation::Read(range)) => {
                one(&counters.reads);
                counters.bytes_read.fetch_add(range.bytes().0, Ordering::Relaxed);
            }
            (Status::Ok, Operation::Write(range)) => {
                one(&counters.writes);
                counters
                    .bytes_written
                    .fetch_add(range.bytes().0, Ordering::Relaxed);
            }
            (Status::Ok, Operation::Flush) => {
                one(&counters.flushes);
            }
            (Status::Ok, _) => {}
            _ => {
                one(&counters.errors);
            }
        }
    }

    fn complete(&mut self, head: u16, used_len: u32) {
        let token = self.slots[usize::from(head)]
            .token
            .take()
            .expect("a request is completed once");
        if self.broken {
            return;
        }
        match self.ring.complete(self.setup.memory.guest(), token, used_len) {
            Ok(()) => self.to_notify = true,
            Err(error) => self.break_ring(error),
        }
        if self.setup.memory.has_faulted() {
            self.break_ring(RingBroken::Addresses);
        }
    }

    fn notify(&mut self) {
        if self.broken || !std::mem::take(&mut self.to_notify) {
            return;
        }
        match self.ring.needs_notification(self.setup.memory.guest()) {
            Ok(true) => signal(&self.setup.call),
            Ok(false) => {}
            Err(error) => self.break_ring(error),
        }
    }

    /// The driver's fault, and the end of this queue until the frontend sets it up anew.
    fn break_ring(&mut self, error: RingBroken) {
        if !std::mem::replace(&mut self.broken, true) {
            let queue = self.setup.index;
            self.setup.limits.rings.log(|before| {
                log::warn!("queue {queue}: {error}; it stops until it is set up anew ({before} such before)");
            });
            if let Some(descriptor) = &self.setup.error {
                // Nobody may be listening.
                let _ = (&mut &*descriptor).write(&1u64.to_ne_bytes());
            }
        }
    }
}

/// Interrupts the guest, if it can be.
pub(super) fn signal(call: &CallSlot) {
    let call = call.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(mut descriptor) = call.as_ref() {
        // Fails only when the counter is full, and then the guest is being interrupted already.
        let _ = descriptor.write(&1u64.to_ne_bytes());
    }
}

/// A frontend's descriptor must not be able to block a worker.
pub(super) fn set_nonblocking(file: &File) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    Ok(rustix::fs::fcntl_setfl(
        file,
        flags | rustix::fs::OFlags::NONBLOCK,
    )?)
}
