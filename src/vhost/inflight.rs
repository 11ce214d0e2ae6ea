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
    records: Records,
}

/// How the records lie in the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Records {
    /// Bytes from one to the next.
    stride: usize,
    /// Entries of the largest queue that each has room for.
    entries: u16,
}

impl Records {
    /// For queues of at most `entries`.
    fn of(entries: u16) -> Self {
        Records {
            stride: InflightRecord::bytes(entries),
            entries,
        }
    }
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

    /// Checks the numbers of a message to a backend with `served` queues.
    fn check(&self, served: u16) -> Result<(), InflightError> {
        let (queues, size) = (self.queues, self.queue_size);
        if !(1..=served).contains(&queues) || !(1..=MAX_QUEUE_SIZE).contains(&size) {
            return Err(InflightError::Queues { queues, size });
        }
        Ok(())
    }

    /// How the records lie in the memory, by its length and what is said of it.
    ///
    /// A frontend gives back the length as it was told it, and a queue's size as it thinks: QEMU its device's `queue-size`,
    /// whatever sizes it sets its queues up with afterwards. So the length decides, where it is just so many records, each
    /// of at least the size that is said (as libvhost-user has it, too). Where it is not, the size that is said does.
    fn records(&self) -> Records {
        let said = Records::of(self.queue_size);
        let stride = usize::try_from(self.bytes).unwrap_or(usize::MAX) / usize::from(self.queues);
        let even =
            self.bytes.is_multiple_of(self.queues.into()) && stride.is_multiple_of(InflightRecord::ALIGNMENT);
        if !even || stride <= said.stride || stride > InflightRecord::bytes(MAX_QUEUE_SIZE) {
            return said;
        }
        let room = InflightRecord::room(stride).min(MAX_QUEUE_SIZE.into());
        Records {
            stride,
            // A power of two, as queues are.
            entries: 1 << room.ilog2(),
        }
    }

    /// Makes the memory for so many queues, of whatever size they will be: zeros, and of a length that cannot change.
    pub(super) fn allocate(mut self, served: u16) -> Result<(Self, File), InflightError> {
        self.check(served)?;
        self.bytes = u64::from(self.queues) * InflightRecord::bytes(MAX_QUEUE_SIZE) as u64;
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
        self.check(served)?;
        let records = self.records();
        let need = u64::from(self.queues) * records.stride as u64;
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
            records,
        })
    }
}

impl InflightTable {
    /// The record of a queue, if there is one of it.
    pub(super) fn record(&self, queue: usize) -> Option<InflightRecord> {
        let queue = u16::try_from(queue).ok().filter(|queue| *queue < self.queues)?;
        let start = usize::from(queue) * self.records.stride;
        InflightRecord::new(self.memory.clone(), start, self.records.entries)
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
            queue_size: self.records.entries,
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
    fn what_is_made_is_sealed_and_has_room_for_the_largest_queues_when_it_comes_back() {
        for said in [1, 2, 3, 128, 1000, 1024] {
            let (made, file) = layout(3, said).allocate(4).unwrap();
            assert_eq!(made.bytes, 3 * InflightRecord::bytes(1024) as u64);
            assert_eq!((made.queues, made.queue_size), (3, said));
            assert!(file.set_len(0).is_err() && file.set_len(1 << 20).is_err());
            for len in BODY_BYTES {
                assert_eq!(InflightLayout::parse(&made.body(len)), Ok(made));
            }
            let table = made.map(4, file).unwrap();
            assert_eq!(table.records, Records::of(1024));
            assert!(table.record(2).is_some() && table.record(3).is_none());
            assert!(!table.has_faulted());
            // A successor reads it alike.
            let (handed, file) = table.export().unwrap();
            assert_eq!((handed.bytes, handed.queue_size), (made.bytes, 1024));
            assert_eq!(handed.map(4, file).unwrap().records, table.records);
        }
    }

    /// Made by an earlier version, which took the frontend's word for the size, or by another backend.
    #[test]
    fn what_others_have_made_lies_as_they_have_laid_it() {
        let read = |queues: u16, queue_size: u16, bytes: u64| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(1 << 20).unwrap();
            let made = InflightLayout {
                bytes,
                ..layout(queues, queue_size)
            };
            let table = made.map(16, file).unwrap();
            let (handed, file) = table.export().unwrap();
            assert_eq!(handed.map(16, file).unwrap().records, table.records);
            table.records
        };
        for queues in [1, 2, 16] {
            for size in [1, 2, 3, 64, 128, 256, 1000, 1024] {
                let bytes = u64::from(queues) * InflightRecord::bytes(size) as u64;
                assert_eq!(read(queues, size, bytes), Records::of(size));
                // More than just the records, in no way that could be one.
                assert_eq!(read(queues, size, bytes + 8), Records::of(size));
            }
        }
        let spaced = Records {
            stride: 4096,
            entries: 128,
        };
        assert_eq!(read(2, 128, 8192), spaced);
        assert_eq!(read(2, 128, 1 << 20), Records::of(128), "larger than any record");
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
            queue_size: 1024,
            bytes: made.bytes - 64,
            ..made
        }));
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        assert!(matches!(made.map(2, null), Err(InflightError::WrongKind)));
    }
}
