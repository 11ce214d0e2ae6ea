//! The memory in which chains in flight are noted. The frontend keeps it while this process lives and dies.
//!
//! GET_INFLIGHT_FD makes it, for the frontend to hold; SET_INFLIGHT_FD brings it, new or as a dead process left it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};
use vhost::vhost_user::message::VhostUserInflight;
use vm_memory::{FileOffset, MmapRegion};

use super::memory::is_of_huge_pages;
use super::message::MalformedBody;
use super::sigbus::MappedRange;
use crate::limits::MAX_QUEUE_SIZE;
use crate::virtqueue::InflightRecord;

/// Length of the message's body without and with the padding at its end; frontends differ.
const BODY_BYTES: [usize; 2] = [20, 24];

/// The memory cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub(super) enum InflightError {
    #[error("{queues} queues of {size} entries are not what is served")]
    Queues { queues: u16, size: u16 },
    #[error(
        "{need} bytes from byte {offset} on are needed, and the file has {file} and the message says {said}"
    )]
    TooShort {
        need: u64,
        offset: u64,
        file: u64,
        said: u64,
    },
    #[error("it is no file of ordinary pages")]
    WrongKind,
    #[error("it cannot be made or mapped")]
    Io(#[from] io::Error),
}

/// What the two messages say of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InflightLayout {
    /// Bytes; in a GET_INFLIGHT_FD nobody has set them yet.
    pub bytes: u64,
    /// Where it begins in the file.
    pub offset: u64,
    pub queues: u16,
    /// Entries of each queue.
    pub queue_size: u16,
}

/// The memory, mapped.
#[derive(Debug)]
pub(super) struct InflightTable {
    // Before the mapping, so that it is dropped first.
    guard: MappedRange,
    memory: Arc<MmapRegion<()>>,
    queues: u16,
    queue_size: u16,
}

impl InflightLayout {
    /// From the body of a message.
    pub(super) fn parse(body: &[u8]) -> Result<Self, MalformedBody> {
        if !BODY_BYTES.contains(&body.len()) {
            return Err(MalformedBody);
        }
        let long = |at: usize| u64::from_ne_bytes(body[at..at + 8].try_into().expect("8 bytes"));
        let short = |at: usize| u16::from_ne_bytes(body[at..at + 2].try_into().expect("2 bytes"));
        Ok(InflightLayout {
            bytes: long(0),
            offset: long(8),
            queues: short(16),
            queue_size: short(18),
        })
    }

    /// As the body of a message of `len` bytes.
    pub(super) fn body(&self, len: usize) -> Vec<u8> {
        let mut body = Vec::with_capacity(len);
        for long in [self.bytes, self.offset] {
            body.extend_from_slice(&long.to_ne_bytes());
        }
        for short in [self.queues, self.queue_size] {
            body.extend_from_slice(&short.to_ne_bytes());
        }
        body.resize(len, 0);
        body
    }

    /// Bytes that the records take, of a backend with `served` queues.
    fn need(&self, served: u16) -> Result<u64, InflightError> {
        let (queues, size) = (self.queues, self.queue_size);
        if !(1..=served).contains(&queues) || !(1..=MAX_QUEUE_SIZE).contains(&size) {
            return Err(InflightError::Queues { queues, size });
        }
        Ok(u64::from(queues) * InflightRecord::bytes(size) as u64)
    }

    /// Makes the memory for so many queues of this size: zeros, and of a length that cannot change.
    pub(super) fn allocate(mut self, served: u16) -> Result<(Self, File), InflightError> {
        self.bytes = self.need(served)?;
        self.offset = 0;
        let memory = rustix::fs::memfd_create(
            "sealblk in flight",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        );
        let memory = memory.map_err(io::Error::from)?;
        rustix::fs::ftruncate(&memory, self.bytes).map_err(io::Error::from)?;
        rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(io::Error::from)?;
        Ok((self, memory.into()))
    }

    /// Maps the memory that a frontend has brought.
    pub(super) fn map(&self, served: u16, file: File) -> Result<InflightTable, InflightError> {
        let need = self.need(served)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || is_of_huge_pages(&file)? {
            return Err(InflightError::WrongKind);
        }
        let end = self.offset.checked_add(need);
        if need > self.bytes || end.is_none_or(|end| end > metadata.len()) {
            return Err(InflightError::TooShort {
                need,
                offset: self.offset,
                file: metadata.len(),
                said: self.bytes,
            });
        }
        let memory = MmapRegion::from_file(FileOffset::new(file, self.offset), need as usize)
            .map_err(io::Error::other)?;
        Ok(InflightTable {
            guard: MappedRange::guard(memory.as_ptr(), memory.size())?,
            memory: Arc::new(memory),
            queues: self.queues,
            queue_size: self.queue_size,
        })
    }
}

impl InflightTable {
    /// The record of a queue, if there is one of it.
    pub(super) fn record(&self, queue: usize) -> Option<InflightRecord> {
        let queue = u16::try_from(queue).ok().filter(|queue| *queue < self.queues)?;
        InflightRecord::new(self.memory.clone(), queue, self.queue_size)
    }

    /// What a successor maps it by.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn export(&self) -> io::Result<(InflightLayout, File)> {
        let file = self.memory.file_offset().ok_or(io::ErrorKind::InvalidData)?;
        let layout = InflightLayout {
            bytes: self.memory.size() as u64,
            offset: file.start(),
            queues: self.queues,
            queue_size: self.queue_size,
        };
        Ok((layout, file.file().try_clone()?))
    }

    /// Whether some of it was lost under us.
    pub(super) fn has_faulted(&self) -> bool {
        self.guard.has_faulted()
    }
}

// The message as the vhost crate has it is the longer one.
const _: () = assert!(size_of::<VhostUserInflight>() == BODY_BYTES[1]);

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(queues: u16, queue_size: u16) -> InflightLayout {
        InflightLayout {
            bytes: 0,
            offset: 0,
            queues,
            queue_size,
        }
    }

    #[test]
    fn what_is_made_is_sealed_and_can_be_brought_back() {
        let (made, file) = layout(3, 128).allocate(4).unwrap();
        assert_eq!(made.bytes, 3 * InflightRecord::bytes(128) as u64);
        assert!(file.set_len(0).is_err() && file.set_len(1 << 20).is_err());
        for len in BODY_BYTES {
            assert_eq!(InflightLayout::parse(&made.body(len)), Ok(made));
        }
        let table = made.map(4, file).unwrap();
        assert!(table.record(2).is_some() && table.record(3).is_none());
        assert!(!table.has_faulted());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (queues, size) in [(0, 128), (5, 128), (4, 0), (4, 1025)] {
            assert!(matches!(
                layout(queues, size).allocate(4),
                Err(InflightError::Queues { .. })
            ));
        }
        for body in [0, 19, 21, 25] {
            assert!(InflightLayout::parse(&vec![0; body]).is_err());
        }
        let (made, file) = layout(2, 64).allocate(2).unwrap();
        let refused = |layout: InflightLayout| layout.map(2, file.try_clone().unwrap()).unwrap_err();
        let short = |layout| matches!(refused(layout), InflightError::TooShort { .. });
        assert!(short(InflightLayout { bytes: 64, ..made }));
        assert!(short(InflightLayout { offset: 4096, ..made }));
        assert!(short(InflightLayout {
            offset: u64::MAX,
            ..made
        }));
        assert!(short(InflightLayout {
            queue_size: 128,
            bytes: 1 << 20,
            ..made
        }));
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        assert!(matches!(made.map(2, null), Err(InflightError::WrongKind)));
    }
}
