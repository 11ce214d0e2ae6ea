//! One io_uring: transfers between the store and private buffers, syncs, and the wake-ups of the worker.
//!
//! Everything a worker waits for is in the ring, so that it waits in one place. A buffer belongs to the engine
//! from submission to completion; that is what makes this interface safe to use.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};

use super::buffers::{Buffer, BufferPool};

const SUBMISSION_ENTRIES: u32 = 256;
/// Every page of the buffers may be a transfer of its own, and every queue entry a sync.
const COMPLETION_ENTRIES: u32 = 4096;

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
    Transfer { tag: u64, buffer: Buffer },
    Sync { tag: u64 },
    Watch { tag: u64 },
}

/// An io_uring and the buffers it works on.
pub(crate) struct Engine {
    ring: IoUring,
    pool: BufferPool,
    operations: Vec<Option<Operation>>,
    vacant: Vec<usize>,
    /// Transfers and syncs that have not ended.
    pending: usize,
}

impl Engine {
    /// A ring with `buffer_bytes` of private buffers.
    ///
    /// # Errors
    /// The kernel's: no memory, or no io_uring (`ENOSYS`, or `EPERM` by `kernel.io_uring_disabled`).
    pub(crate) fn new(buffer_bytes: usize) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_cqsize(COMPLETION_ENTRIES)
            .setup_clamp()
            .dontfork()
            .build(SUBMISSION_ENTRIES)?;
        Ok(Engine {
            ring,
            pool: BufferPool::new(buffer_bytes)?,
            operations: Vec::new(),
            vacant: Vec::new(),
            pending: 0,
        })
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

    /// Reads `buffer.len()` bytes of `file` from `offset` into the buffer.
    ///
    /// # Errors
    /// The kernel's, of submitting earlier operations when the ring is full.
    pub(crate) fn read(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        buffer: Buffer,
        tag: u64,
    ) -> io::Result<()> {
        let entry = opcode::Read::new(
            types::Fd(file.as_raw_fd()),
            self.pool.address(&buffer),
            buffer.len() as u32,
        )
        .offset(offset)
        .build();
        self.push(entry, Operation::Transfer { tag, buffer })
    }

    /// Writes the buffer's bytes to `file` at `offset`; with `durable`, they are on the medium when this completes
    /// (`RWF_DSYNC`).
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub(crate) fn write(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        buffer: Buffer,
        durable: bool,
        tag: u64,
    ) -> io::Result<()> {
        let entry = opcode::Write::new(
            types::Fd(file.as_raw_fd()),
            self.pool.address(&buffer),
            buffer.len() as u32,
        )
        .offset(offset)
        .rw_flags(if durable { libc::RWF_DSYNC } else { 0 })
        .build();
        self.push(entry, Operation::Transfer { tag, buffer })
    }

    /// Makes every write of `file` that has ended durable (`fdatasync`).
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub(crate) fn sync(&mut self, file: BorrowedFd<'_>, tag: u64) -> io::Result<()> {
        let entry = opcode::Fsync::new(types::Fd(file.as_raw_fd()))
            .flags(types::FsyncFlags::DATASYNC)
            .build();
        self.push(entry, Operation::Sync { tag })
    }

    /// Tells once when `file` is readable.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub(crate) fn watch(&mut self, file: &impl AsRawFd, tag: u64) -> io::Result<()> {
        let entry = opcode::PollAdd::new(types::Fd(file.as_raw_fd()), libc::POLLIN as u32).build();
        self.push(entry, Operation::Watch { tag })
    }

    /// Transfers and syncs that have not ended.
    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    /// Submits what is queued.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        self.enter(0)
    }

    /// Submits what is queued and waits until something has happened.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn submit_and_wait(&mut self) -> io::Result<()> {
        self.enter(1)
    }

    fn enter(&mut self, want: usize) -> io::Result<()> {
        loop {
            match self.ring.submit_and_wait(want) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel is out of memory for the moment.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                // The completion queue must be emptied first; the caller is about to do that.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The next thing that has happened, if any.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        let entry = self.ring.completion().next()?;
        let index = entry.user_data() as usize;
        let operation = self.operations[index]
            .take()
            .expect("the kernel completes each operation once");
        self.vacant.push(index);
        let result = match entry.result() {
            bytes @ 0.. => Ok(bytes as usize),
            errno => Err(io::Error::from_raw_os_error(-errno)),
        };
        let completion = match operation {
            Operation::Watch { tag } => return Some(Event::Readable(tag)),
            Operation::Transfer { tag, buffer } => Completion {
                tag,
                buffer: Some(buffer),
                result,
            },
            Operation::Sync { tag } => Completion {
                tag,
                buffer: None,
                result,
            },
        };
        self.pending -= 1;
        Some(Event::Completed(completion))
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
        if !matches!(operation, Operation::Watch { .. }) {
            self.pending += 1;
        }
        self.operations[index] = Some(operation);
        Ok(())
    }
}

impl Drop for Engine {
    /// Waits for every transfer: until then the kernel uses the buffers. Watches use no memory and end with the
    /// ring.
    fn drop(&mut self) {
        while self.pending > 0 {
            if self.submit_and_wait().is_err() {
                // The memory cannot be given back safely, and nothing can be waited for any more.
                std::process::abort();
            }
            while self.next_event().is_some() {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn completions(engine: &mut Engine, count: usize) -> Vec<Completion> {
        let mut all = Vec::new();
        while all.len() < count {
            engine.submit_and_wait().unwrap();
            while let Some(event) = engine.next_event() {
                match event {
                    Event::Completed(completion) => all.push(completion),
                    Event::Readable(tag) => panic!("{tag}"),
                }
            }
        }
        all
    }

    #[test]
    fn what_is_written_is_read_back_also_when_the_ring_overflows() {
        let file = tempfile::tempfile().unwrap();
        let mut engine = Engine::new(1 << 20).unwrap();
        // More operations than the submission queue has entries.
        let mut written = 0;
        while let Some(mut buffer) = engine.allocate(512) {
            engine.bytes_mut(&mut buffer).fill(written as u8);
            engine
                .write(file.as_fd(), written * 512, buffer, written % 2 == 0, written)
                .unwrap();
            written += 1;
            if written == 256 {
                break;
            }
        }
        engine.sync(file.as_fd(), 9999).unwrap();
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
        engine.read(file.as_fd(), 200 * 512, buffer, 1).unwrap();
        let mut buffer = completions(&mut engine, 1).pop().unwrap().buffer.unwrap();
        assert!(engine.bytes_mut(&mut buffer).iter().all(|byte| *byte == 200));
        engine.free(buffer);
    }

    #[test]
    fn errors_and_short_reads_are_told() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100).unwrap();
        let mut engine = Engine::new(1 << 16).unwrap();
        let buffer = engine.allocate(512).unwrap();
        engine.read(file.as_fd(), 0, buffer, 7).unwrap();
        let short = completions(&mut engine, 1).pop().unwrap();
        assert_eq!((short.tag, short.result.unwrap()), (7, 100));
        engine.free(short.buffer.unwrap());
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let buffer = engine.allocate(512).unwrap();
        engine.write(reader.as_fd(), 0, buffer, false, 8).unwrap();
        let failed = completions(&mut engine, 1).pop().unwrap();
        assert_eq!(failed.result.unwrap_err().raw_os_error(), Some(libc::EBADF));
        engine.free(failed.buffer.unwrap());
    }

    #[test]
    fn a_watch_tells_once() {
        let event = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
        let mut engine = Engine::new(1 << 16).unwrap();
        engine.watch(&event, 3).unwrap();
        event.write(1).unwrap();
        engine.submit_and_wait().unwrap();
        assert!(matches!(engine.next_event(), Some(Event::Readable(3))));
        assert!(engine.next_event().is_none());
    }
}
