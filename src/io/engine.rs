//! One io_uring: transfers between the store and private buffers, syncs, and the wake-ups of the worker.
//!
//! Everything a worker waits for is in the ring, so that it waits in one place. A buffer belongs to the engine
//! from submission to completion; that is what makes this interface safe to use.
//!
//! What lies in memory anyway is transferred at once: see [`super::target`].
//!
//! Everything else goes in small portions: the kernel gets transfers as soon as there are a few, and the driver is to
//! hear of a few that have ended before the next are looked at. So medium, worker and driver work at the same time. A
//! medium that completes all that it has with one interrupt would have each of them wait for the two others otherwise.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_uring::squeue::Entry;
use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::buffers::{Buffer, BufferPool};
use super::ring::{Allowed, disabled, enter, register};
use super::target::Target;

/// Some portions.
const SUBMISSION_ENTRIES: u32 = 32;
/// Many portions. What ends when it is full the kernel keeps aside (`IORING_FEAT_NODROP`).
const COMPLETION_ENTRIES: u32 = 512;
/// What is done here, and nothing else.
const ALLOWED: Allowed = Allowed {
    operations: &[
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::ReadFixed::CODE,
        opcode::WriteFixed::CODE,
        opcode::Fsync::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
    ],
    flags: squeue::Flags::FIXED_FILE.bits(),
    registrations: &[register::BUFFERS, register::FILES],
};
/// The only registered buffer: the whole pool.
const POOL: u16 = 0;
/// Transfers that are done at once before the caller should look at what has completed.
const MOST_AT_ONCE: usize = 16;
/// Their bytes.
const MOST_BYTES_AT_ONCE: usize = 256 << 10;
/// Transfers that are submitted, or told, together.
const PORTION: usize = 4;
/// Their bytes.
const PORTION_BYTES: usize = 256 << 10;

/// Which of the files that the engine was equipped with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIndex(pub(crate) u16);

/// Something happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A transfer or sync has ended.
    Completed(Completion),
    /// The descriptor that was [watched](Engine::watch) with this tag is readable, or broken.
    Readable(u64),
}

/// The end of a transfer or a sync.
#[derive(Debug)]
pub(crate) struct Completion {
    /// The submitter's.
    pub(crate) tag: u64,
    /// The transfer's buffer; none for a sync.
    pub(crate) buffer: Option<Buffer>,
    /// Bytes transferred (0 for a sync), or the kernel's error.
    pub(crate) result: io::Result<usize>,
}

/// What the kernel is doing for us.
#[derive(Debug)]
enum Operation {
    Transfer {
        tag: u64,
        buffer: Buffer,
    },
    Sync {
        tag: u64,
    },
    Watch {
        file: RawFd,
        tag: u64,
    },
    /// The end of a watch.
    Unwatch,
}

/// An io_uring, and the buffers and files it works on.
pub(crate) struct Engine {
    ring: IoUring,
    /// The kernel refuses everything else.
    restricted: bool,
    pool: BufferPool,
    targets: Vec<Target>,
    /// Whether the kernel knows files and pool by number, so that it need not look them up each time.
    registered: bool,
    operations: Vec<Option<Operation>>,
    vacant: Vec<usize>,
    /// Transfers and syncs that have not ended.
    pending: usize,
    /// Completions of operations that were done at once, which the worker has not been given yet.
    done: VecDeque<Completion>,
    done_bytes: usize,
    /// Operations that the kernel does not have yet.
    queued: Portion,
    /// Operations whose completions the worker has been given since the last submission.
    told: Portion,
}

/// Transfers that go together.
#[derive(Debug, Default)]
struct Portion {
    transfers: usize,
    bytes: usize,
}

impl Portion {
    fn add(&mut self, buffer: &Buffer) {
        self.transfers += 1;
        self.bytes += buffer.len();
    }

    fn is_full(&self) -> bool {
        self.transfers >= PORTION || self.bytes >= PORTION_BYTES
    }
}

impl Engine {
    /// A ring that can do nothing yet.
    ///
    /// # Errors
    /// The kernel's: no memory, or no io_uring (`ENOSYS`, or `EPERM` by `kernel.io_uring_disabled`).
    pub(crate) fn new() -> io::Result<Self> {
        let ring = build_ring()?;
        Ok(Engine {
            restricted: ALLOWED.restrict(&ring),
            ring,
            pool: BufferPool::empty(),
            targets: Vec::new(),
            registered: false,
            operations: Vec::new(),
            vacant: Vec::new(),
            pending: 0,
            done: VecDeque::new(),
            done_bytes: 0,
            queued: Portion::default(),
            told: Portion::default(),
        })
    }

    /// Whether the kernel refuses whatever is not done here.
    pub(crate) fn is_restricted(&self) -> bool {
        self.restricted
    }

    /// To be called once, by the thread that uses the engine from then on.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn enable(&self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()
    }

    /// Gives it `buffer_bytes` of private buffers, for transfers to and from `files`: the first time, and for good.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn equip<'f>(
        &mut self,
        buffer_bytes: usize,
        files: impl IntoIterator<Item = BorrowedFd<'f>>,
    ) -> io::Result<()> {
        if !self.targets.is_empty() {
            return Ok(());
        }
        let targets = files.into_iter().map(Target::new).collect::<io::Result<_>>()?;
        self.pool = BufferPool::new(buffer_bytes)?;
        self.targets = targets;
        let files: Vec<RawFd> = self.targets.iter().map(Target::raw).collect();
        let pool = [self.pool.as_iovec()];
        // Both fail where too little memory may be locked. It works without, too.
        let registered = self.ring.submitter().register_files(&files).and_then(|()| {
            // SAFETY: the pool's mapping lives until the engine is dropped, and the ring goes before it.
            unsafe { self.ring.submitter().register_buffers(&pool) }
        });
        match registered {
            Ok(()) => self.registered = true,
            Err(error) => log::debug!("files or buffers are not registered: {error}"),
        }
        Ok(())
    }

    /// A private buffer of `want` bytes, or a shorter one of whole pages where memory is short, or none.
    pub(crate) fn allocate(&mut self, want: usize) -> Option<Buffer> {
        self.pool.allocate(want)
    }

    /// Takes a buffer back.
    pub(crate) fn free(&mut self, buffer: Buffer) {
        self.pool.free(buffer);
    }

    /// The buffer's bytes.
    pub(crate) fn bytes_mut(&mut self, buffer: &mut Buffer) -> &mut [u8] {
        self.pool.bytes_mut(buffer)
    }

    /// The bytes of a buffer to be filled from others, and of those others.
    pub(crate) fn bytes_from<'e>(
        &'e mut self,
        buffer: &'e mut Buffer,
        others: [Option<&'e Buffer>; 2],
    ) -> (&'e mut [u8], [Option<&'e [u8]>; 2]) {
        self.pool.bytes_from(buffer, others)
    }

    /// A private buffer of exactly `want` bytes, or none.
    pub(crate) fn allocate_whole(&mut self, want: usize) -> Option<Buffer> {
        let buffer = self.pool.allocate(want)?;
        if buffer.len() < want {
            self.pool.free(buffer);
            return None;
        }
        Some(buffer)
    }

    /// Reads `buffer.len()` bytes of a file from `offset` into the buffer.
    ///
    /// # Errors
    /// The kernel's, of submitting earlier operations when the ring is full.
    pub(crate) fn read(
        &mut self,
        file: FileIndex,
        offset: u64,
        mut buffer: Buffer,
        tag: u64,
    ) -> io::Result<()> {
        let target = &self.targets[usize::from(file.0)];
        if target.is_in_memory() {
            let result = target.read(self.pool.bytes_mut(&mut buffer), offset);
            self.done_at_once(tag, Some(buffer), result);
            return Ok(());
        }
        let (address, len) = (self.pool.address(&buffer), buffer.len() as u32);
        let entry = if self.registered {
            opcode::ReadFixed::new(types::Fixed(u32::from(file.0)), address, len, POOL)
                .offset(offset)
                .build()
        } else {
            opcode::Read::new(types::Fd(target.raw()), address, len)
                .offset(offset)
                .build()
        };
        self.push(entry, Operation::Transfer { tag, buffer })
    }

    /// Writes the buffer's bytes to a file at `offset`; with `durable`, they are on the medium when this completes
    /// (`RWF_DSYNC`).
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub(crate) fn write(
        &mut self,
        file: FileIndex,
        offset: u64,
        mut buffer: Buffer,
        durable: bool,
        tag: u64,
    ) -> io::Result<()> {
        let target = &self.targets[usize::from(file.0)];
        if target.is_in_memory() && !durable {
            let result = target.write(self.pool.bytes_mut(&mut buffer), offset);
            self.done_at_once(tag, Some(buffer), result);
            return Ok(());
        }
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        let (address, len) = (self.pool.address(&buffer), buffer.len() as u32);
        let entry = if self.registered {
            opcode::WriteFixed::new(types::Fixed(u32::from(file.0)), address, len, POOL)
                .offset(offset)
                .rw_flags(flags)
                .build()
        } else {
            opcode::Write::new(types::Fd(target.raw()), address, len)
                .offset(offset)
                .rw_flags(flags)
                .build()
        };
        self.push(entry, Operation::Transfer { tag, buffer })
    }

    /// Makes every write of a file that has ended durable (`fdatasync`).
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub(crate) fn sync(&mut self, file: FileIndex, tag: u64) -> io::Result<()> {
        let flags = types::FsyncFlags::DATASYNC;
        let entry = if self.registered {
            opcode::Fsync::new(types::Fixed(u32::from(file.0)))
                .flags(flags)
                .build()
        } else {
            let target = &self.targets[usize::from(file.0)];
            opcode::Fsync::new(types::Fd(target.raw())).flags(flags).build()
        };
        self.push(entry, Operation::Sync { tag })
    }

    /// Whether so much was done at once that what has completed should be looked at before more is begun.
    pub(crate) fn has_done_enough(&self) -> bool {
        self.done.len() >= MOST_AT_ONCE || self.done_bytes >= MOST_BYTES_AT_ONCE
    }

    /// Whether so much has been told since the last submission that the driver should hear of it before more is.
    pub(crate) fn has_told_enough(&self) -> bool {
        self.told.is_full()
    }

    fn done_at_once(&mut self, tag: u64, buffer: Option<Buffer>, result: io::Result<usize>) {
        self.pending += 1;
        self.done_bytes += buffer.as_ref().map_or(0, Buffer::len);
        self.done.push_back(Completion { tag, buffer, result });
    }

    /// Tells, from now on, whenever `file`, an eventfd, has been written to; it need not be read.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub(crate) fn watch(&mut self, file: &impl AsRawFd, tag: u64) -> io::Result<()> {
        let file = file.as_raw_fd();
        self.push(poll(file), Operation::Watch { file, tag })
    }

    /// Ends all watches. There must be nothing else in flight; what the watches have not told is lost.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn end_watches(&mut self) -> io::Result<()> {
        assert_eq!(self.pending, 0, "a transfer would be lost");
        for index in 0..self.operations.len() {
            if matches!(self.operations[index], Some(Operation::Watch { .. })) {
                // Not POLL_REMOVE, which leaves a poll that is just about to tell something.
                self.push(opcode::AsyncCancel::new(index as u64).build(), Operation::Unwatch)?;
            }
        }
        while self.vacant.len() < self.operations.len() {
            self.submit_and_wait()?;
            while let Some(entry) = self.ring.completion().next() {
                if !cqueue::more(entry.flags()) {
                    let index = entry.user_data() as usize;
                    self.operations[index] = None;
                    self.vacant.push(index);
                }
            }
        }
        Ok(())
    }

    /// Whether something has happened that has not been told; asks the kernel only if it has something to say.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn has_event(&mut self) -> io::Result<bool> {
        if self.done.is_empty() && self.ring.completion().is_empty() {
            self.submit()?;
        }
        Ok(!self.done.is_empty() || !self.ring.completion().is_empty())
    }

    /// Transfers and syncs that have not ended.
    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    /// Submits what is queued, and has the kernel tell what has completed.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        self.told = Portion::default();
        let submission = self.ring.submission();
        let nothing_to_do = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        if nothing_to_do { Ok(()) } else { self.enter(0) }
    }

    /// Submits what is queued and waits until there is something that has not been told.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn submit_and_wait(&mut self) -> io::Result<()> {
        if !self.done.is_empty() || !self.ring.completion().is_empty() {
            return self.submit();
        }
        self.told = Portion::default();
        self.enter(1)
    }

    fn enter(&mut self, want: usize) -> io::Result<()> {
        self.queued = Portion::default();
        enter(&self.ring, want)
    }

    /// The next thing that has happened, if any.
    ///
    /// # Errors
    /// As [`Engine::watch`].
    pub(crate) fn next_event(&mut self) -> io::Result<Option<Event>> {
        if let Some(completion) = self.done.pop_front() {
            self.done_bytes -= completion.buffer.as_ref().map_or(0, Buffer::len);
            self.pending -= 1;
            return Ok(Some(Event::Completed(completion)));
        }
        let Some(entry) = self.ring.completion().next() else {
            return Ok(None);
        };
        let index = entry.user_data() as usize;
        let operation = self.operations[index]
            .take()
            .expect("the kernel completes each operation once");
        let result = match entry.result() {
            bytes @ 0.. => Ok(bytes as usize),
            errno => Err(io::Error::from_raw_os_error(-errno)),
        };
        let completion = match operation {
            Operation::Watch { file, tag } => {
                self.watched(index, file, tag, cqueue::more(entry.flags()), &result)?;
                return Ok(Some(Event::Readable(tag)));
            }
            Operation::Unwatch => unreachable!("they end before anything else begins"),
            Operation::Transfer { tag, buffer } => {
                self.told.add(&buffer);
                Completion {
                    tag,
                    buffer: Some(buffer),
                    result,
                }
            }
            Operation::Sync { tag } => Completion {
                tag,
                buffer: None,
                result,
            },
        };
        self.vacant.push(index);
        self.pending -= 1;
        Ok(Some(Event::Completed(completion)))
    }

    /// A watch has told something. The kernel goes on with it, or is asked to.
    fn watched(
        &mut self,
        index: usize,
        file: RawFd,
        tag: u64,
        goes_on: bool,
        result: &io::Result<usize>,
    ) -> io::Result<()> {
        if goes_on {
            self.operations[index] = Some(Operation::Watch { file, tag });
            return Ok(());
        }
        self.vacant.push(index);
        if let Err(error) = result {
            log::warn!("a descriptor cannot be waited for: {error}");
            return Ok(());
        }
        self.push(poll(file), Operation::Watch { file, tag })
    }

    fn push(&mut self, entry: Entry, operation: Operation) -> io::Result<()> {
        if self.ring.submission().is_full() {
            self.enter(0)?;
        }
        let index = self.vacant.pop().unwrap_or(self.operations.len());
        if index == self.operations.len() {
            self.operations.push(None);
        }
        let entry = entry.user_data(index as u64);
        // SAFETY: the entry's memory is a buffer of the pool, which is moved into `operations` and stays there
        // until the kernel has completed the operation; `drop` waits for that. Entries without memory need nothing.
        unsafe { self.ring.submission().push(&entry) }
            .map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        if matches!(operation, Operation::Transfer { .. } | Operation::Sync { .. }) {
            self.pending += 1;
        }
        if let Operation::Transfer { buffer, .. } = &operation {
            self.queued.add(buffer);
        }
        self.operations[index] = Some(operation);
        if self.queued.is_full() {
            self.enter(0)
        } else {
            Ok(())
        }
    }
}

impl Drop for Engine {
    /// Waits for every transfer: until then the kernel uses the buffers. Watches use no memory and end with the
    /// ring.
    fn drop(&mut self) {
        while self.pending > 0 {
            if self.submit_and_wait().is_err() {
                // The memory cannot be given back safely, and nothing can be waited for any more.
                crate::logging::abort();
            }
            while let Ok(Some(_)) = self.next_event() {}
        }
    }
}

/// A ring for one thread, which the kernel interrupts for nothing (`IORING_SETUP_SINGLE_ISSUER` and
/// `IORING_SETUP_DEFER_TASKRUN`, Linux 6.1), where there is that.
fn build_ring() -> io::Result<IoUring> {
    let mut builder = disabled();
    builder.setup_cqsize(COMPLETION_ENTRIES);
    let plain = builder.clone();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag();
    builder
        .build(SUBMISSION_ENTRIES)
        .or_else(|_| plain.build(SUBMISSION_ENTRIES))
}

fn poll(file: RawFd) -> Entry {
    opcode::PollAdd::new(types::Fd(file), libc::POLLIN as u32)
        .multi(true)
        .build()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use vmm_sys_util::eventfd::EventFd;

    use super::*;

    const FILE: FileIndex = FileIndex(0);

    fn engine(buffer_bytes: usize, file: impl AsFd) -> Engine {
        let mut engine = Engine::new().unwrap();
        engine.enable().unwrap();
        engine.equip(buffer_bytes, [file.as_fd()]).unwrap();
        engine
    }

    /// One on a disk, if temporary files are there, and one in memory.
    fn files() -> [File; 2] {
        let memory = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        [tempfile::tempfile().unwrap(), File::from(memory)]
    }

    fn completions(engine: &mut Engine, count: usize) -> Vec<Completion> {
        let mut all = Vec::new();
        while all.len() < count {
            engine.submit_and_wait().unwrap();
            while let Some(event) = engine.next_event().unwrap() {
                match event {
                    Event::Completed(completion) => all.push(completion),
                    Event::Readable(tag) => panic!("{tag}"),
                }
            }
        }
        all
    }

    fn readable(engine: &mut Engine) -> u64 {
        engine.submit_and_wait().unwrap();
        match engine.next_event().unwrap() {
            Some(Event::Readable(tag)) => tag,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_written_is_read_back_also_when_the_ring_overflows() {
        for (file, registers) in files().into_iter().flat_map(|file| {
            let other = file.try_clone().unwrap();
            [(file, true), (other, false)]
        }) {
            let mut engine = engine(1 << 20, &file);
            engine.registered &= registers;
            // More operations than the submission queue has entries.
            for number in 0..256 {
                let mut buffer = engine.allocate(512).unwrap();
                engine.bytes_mut(&mut buffer).fill(number as u8);
                engine
                    .write(FILE, number * 512, buffer, number % 2 == 0, number)
                    .unwrap();
            }
            engine.sync(FILE, 9999).unwrap();
            for completion in completions(&mut engine, 257) {
                match completion.buffer {
                    Some(buffer) => {
                        assert_eq!(completion.result.unwrap(), 512);
                        engine.free(buffer);
                    }
                    None => assert_eq!(completion.tag, 9999),
                }
            }
            assert_eq!(engine.pending(), 0);
            let buffer = engine.allocate(512).unwrap();
            engine.read(FILE, 200 * 512, buffer, 1).unwrap();
            let mut buffer = completions(&mut engine, 1).pop().unwrap().buffer.unwrap();
            assert!(engine.bytes_mut(&mut buffer).iter().all(|byte| *byte == 200));
            engine.free(buffer);
        }
    }

    #[test]
    fn errors_and_short_reads_are_told() {
        for file in files() {
            file.set_len(100).unwrap();
            let mut engine = engine(1 << 16, &file);
            let buffer = engine.allocate(512).unwrap();
            engine.read(FILE, 0, buffer, 7).unwrap();
            let short = completions(&mut engine, 1).pop().unwrap();
            assert_eq!((short.tag, short.result.unwrap()), (7, 100));
            engine.free(short.buffer.unwrap());
        }
        for file in files() {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let mut engine = engine(1 << 16, File::open(path).unwrap());
            let buffer = engine.allocate(512).unwrap();
            engine.write(FILE, 0, buffer, false, 8).unwrap();
            let failed = completions(&mut engine, 1).pop().unwrap();
            assert_eq!(failed.result.unwrap_err().raw_os_error(), Some(libc::EBADF));
            engine.free(failed.buffer.unwrap());
        }
    }

    #[test]
    fn transfers_in_memory_are_done_at_once_up_to_a_limit() {
        let [_, memory] = files();
        let mut engine = engine(1 << 20, &memory);
        let mut done = 0;
        while !engine.has_done_enough() {
            let buffer = engine.allocate(512).unwrap();
            engine.write(FILE, done * 512, buffer, false, done).unwrap();
            done += 1;
        }
        assert_eq!(
            memory.metadata().unwrap().len(),
            done * 512,
            "before anything was submitted"
        );
        assert_eq!((engine.pending(), done), (MOST_AT_ONCE, MOST_AT_ONCE as u64));
        for (tag, completion) in (0..).zip(completions(&mut engine, MOST_AT_ONCE)) {
            assert_eq!(completion.tag, tag);
            engine.free(completion.buffer.unwrap());
        }
        assert!(!engine.has_done_enough());
        let large = engine.allocate(MOST_BYTES_AT_ONCE).unwrap();
        engine.write(FILE, 0, large, false, 0).unwrap();
        assert!(engine.has_done_enough());
        let completion = completions(&mut engine, 1).pop().unwrap();
        engine.free(completion.buffer.unwrap());
        assert!(!engine.has_done_enough());
    }

    #[test]
    fn transfers_by_the_kernel_go_in_portions() {
        let [_, memory] = files();
        let mut engine = engine(1 << 20, &memory);
        let write = |engine: &mut Engine, bytes: usize| {
            let buffer = engine.allocate(bytes).unwrap();
            // The kernel's, since it is durable.
            engine.write(FILE, 0, buffer, true, 0).unwrap();
        };
        for number in 1..=2 * PORTION {
            write(&mut engine, 512);
            assert_eq!(engine.ring.submission().len(), number % PORTION);
        }
        write(&mut engine, PORTION_BYTES);
        assert_eq!(engine.ring.submission().len(), 0);

        let mut portions = Vec::new();
        while engine.pending() > 0 {
            engine.submit_and_wait().unwrap();
            assert!(!engine.has_told_enough());
            let mut portion = 0;
            while !engine.has_told_enough()
                && let Some(Event::Completed(completion)) = engine.next_event().unwrap()
            {
                portion += 1;
                engine.free(completion.buffer.unwrap());
            }
            portions.push(portion);
        }
        assert_eq!(portions.iter().sum::<usize>(), 2 * PORTION + 1);
        assert!(portions.iter().all(|told| *told <= PORTION), "{portions:?}");
    }

    #[test]
    fn a_watch_tells_each_time() {
        let [_, memory] = files();
        let (one, other) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
        let mut engine = engine(1 << 16, &memory);
        engine.watch(&one, 3).unwrap();
        engine.watch(&other, 4).unwrap();
        for _ in 0..3 {
            one.write(1).unwrap();
            assert_eq!(readable(&mut engine), 3);
            assert!(engine.next_event().unwrap().is_none());
            other.write(1).unwrap();
            assert_eq!(readable(&mut engine), 4);
            assert!(engine.next_event().unwrap().is_none());
        }
    }

    #[test]
    fn watches_end_and_others_begin() {
        let [_, memory] = files();
        let mut engine = engine(1 << 16, &memory);
        for tag in 0..3 {
            let (one, other) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
            engine.watch(&one, tag).unwrap();
            engine.watch(&other, 9).unwrap();
            other.write(1).unwrap();
            assert_eq!(readable(&mut engine), 9);
            // One that is ready, and one that is not.
            other.write(1).unwrap();
            engine.end_watches().unwrap();
            one.write(1).unwrap();
            engine.submit().unwrap();
            assert!(engine.next_event().unwrap().is_none());
            assert_eq!(engine.vacant.len(), engine.operations.len());
        }
    }

    /// The kernel's answer to an operation, of any ring.
    fn result(engine: &mut Engine, entry: &Entry) -> i32 {
        // SAFETY: it is refused before any of its memory is looked at, or has none.
        unsafe { engine.ring.submission().push(entry) }.unwrap();
        enter(&engine.ring, 1).unwrap();
        engine.ring.completion().next().unwrap().result()
    }

    #[test]
    fn the_ring_does_nothing_but_what_is_needed() {
        let [file, _] = files();
        let mut engine = engine(1 << 16, &file);
        assert!(engine.is_restricted());
        let (fd, null) = (types::Fd(file.as_raw_fd()), std::ptr::null_mut::<u8>());
        let path = c"/etc/passwd".as_ptr();
        let here = types::Fd(libc::AT_FDCWD);
        let time = types::Timespec::new();
        let refused = [
            opcode::Nop::new().build(),
            opcode::OpenAt::new(here, path).build(),
            opcode::OpenAt2::new(here, path, std::ptr::null()).build(),
            opcode::Statx::new(here, path, null.cast()).build(),
            opcode::UnlinkAt::new(here, path).build(),
            opcode::RenameAt::new(here, path, here, path).build(),
            opcode::MkDirAt::new(here, path).build(),
            opcode::SymlinkAt::new(here, path, path).build(),
            opcode::LinkAt::new(here, path, here, path).build(),
            opcode::Socket::new(libc::AF_UNIX, libc::SOCK_STREAM, 0).build(),
            opcode::Connect::new(fd, std::ptr::null(), 0).build(),
            opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).build(),
            opcode::Bind::new(fd, std::ptr::null(), 0).build(),
            opcode::Listen::new(fd, 1).build(),
            opcode::Shutdown::new(fd, 0).build(),
            opcode::Send::new(fd, null, 0).build(),
            opcode::SendMsg::new(fd, std::ptr::null()).build(),
            opcode::SendZc::new(fd, null, 0).build(),
            opcode::Recv::new(fd, null, 0).build(),
            opcode::RecvMsg::new(fd, std::ptr::null_mut()).build(),
            opcode::Readv::new(fd, std::ptr::null(), 0).build(),
            opcode::Writev::new(fd, std::ptr::null(), 0).build(),
            opcode::Splice::new(fd, -1, fd, -1, 1).build(),
            opcode::Tee::new(fd, fd, 1).build(),
            opcode::Fallocate::new(fd, 1).build(),
            opcode::Ftruncate::new(fd, 1).build(),
            opcode::Close::new(fd).build(),
            opcode::EpollCtl::new(fd, fd, 1, std::ptr::null()).build(),
            opcode::Timeout::new(&time).build(),
            opcode::PollRemove::new(0).build(),
            opcode::MsgRingData::new(fd, 0, 0, None).build(),
            opcode::MsgRingSendFd::new(fd, types::Fixed(0), types::DestinationSlot::auto_target(), 0).build(),
            opcode::UringCmd16::new(fd, 0).build(),
            opcode::ProvideBuffers::new(null, 0, 0, 0, 0).build(),
            opcode::FilesUpdate::new(std::ptr::null(), 0).build(),
            opcode::FixedFdInstall::new(types::Fixed(0), 0).build(),
        ];
        for entry in refused {
            let code = entry.get_opcode();
            assert_eq!(result(&mut engine, &entry), -libc::EACCES, "operation {code}");
        }
        let sync = || opcode::Fsync::new(types::Fixed(0)).build();
        assert_eq!(result(&mut engine, &sync()), 0);
        for flags in [
            squeue::Flags::IO_DRAIN,
            squeue::Flags::ASYNC,
            squeue::Flags::IO_LINK,
        ] {
            assert_eq!(
                result(&mut engine, &sync().flags(flags)),
                -libc::EACCES,
                "{flags:?}"
            );
        }
        let ring = engine.ring.submitter();
        let refused = [
            ring.register_eventfd(file.as_raw_fd()),
            ring.register_personality().map(drop),
            ring.register_files_update(0, &[0]).map(drop),
            ring.unregister_files(),
            ring.unregister_buffers(),
            ring.register_iowq_max_workers(&mut [0, 0]),
            ring.register_enable_rings(),
            ring.register_restrictions(&mut []),
        ];
        for refusal in refused {
            assert_eq!(refusal.unwrap_err().raw_os_error(), Some(libc::EACCES));
        }
    }
}
