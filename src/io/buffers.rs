//! The private buffers of one worker: a fixed piece of page-aligned memory, handed out in runs of pages.
//!
//! Guest data is only ever encrypted and decrypted here, never in guest memory, which the guest could change
//! meanwhile.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

const PAGE_BYTES: usize = 4096;

/// A run of pages out of a [`BufferPool`]. It must be given back with [`BufferPool::free`].
#[derive(Debug)]
#[must_use = "a buffer that is not given back is lost to the pool"]
pub(crate) struct Buffer {
    first_page: u32,
    len: u32,
}

impl Buffer {
    /// Usable bytes.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    fn pages(&self) -> std::ops::Range<usize> {
        let first = self.first_page as usize;
        first..first + self.len().div_ceil(PAGE_BYTES)
    }
}

/// Page-aligned memory, a bit for each page.
pub(super) struct BufferPool {
    memory: NonNull<u8>,
    in_use: Vec<bool>,
}

// SAFETY: the mapping is owned by the pool alone and valid in every thread.
unsafe impl Send for BufferPool {}

impl BufferPool {
    /// Without memory.
    pub(super) fn empty() -> Self {
        BufferPool {
            memory: NonNull::dangling(),
            in_use: Vec::new(),
        }
    }

    /// `bytes` of memory, a multiple of the page size.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        assert!(bytes > 0 && bytes.is_multiple_of(PAGE_BYTES));
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choosing.
        let address = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::PRIVATE)?
        };
        let memory =
            NonNull::new(address.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(BufferPool {
            memory,
            in_use: vec![false; bytes / PAGE_BYTES],
        })
    }

    /// A buffer of `want` bytes, or a shorter one of whole pages where memory is short, or none.
    pub(super) fn allocate(&mut self, want: usize) -> Option<Buffer> {
        let want_pages = want.div_ceil(PAGE_BYTES);
        let run = self.find_run(want_pages)?;
        self.in_use[run.clone()].fill(true);
        let len = want.min(run.len() * PAGE_BYTES);
        Some(Buffer {
            first_page: run.start as u32,
            len: len as u32,
        })
    }

    /// The first run of `want` free pages; failing that, the longest. The first, so that memory that was used just now,
    /// and is in the processor's caches, is used again.
    fn find_run(&self, want: usize) -> Option<std::ops::Range<usize>> {
        let mut longest = 0..0;
        let mut start = 0;
        for (page, in_use) in self.in_use.iter().enumerate() {
            if *in_use {
                start = page + 1;
                continue;
            }
            if page + 1 - start > longest.len() {
                longest = start..page + 1;
            }
            if longest.len() == want {
                break;
            }
        }
        (!longest.is_empty()).then_some(longest)
    }

    /// Takes a buffer back.
    #[expect(clippy::needless_pass_by_value, reason = "giving it back consumes it")]
    pub(super) fn free(&mut self, buffer: Buffer) {
        self.in_use[buffer.pages()].fill(false);
    }

    /// The buffer's bytes.
    pub(super) fn bytes_mut(&mut self, buffer: &mut Buffer) -> &mut [u8] {
        // SAFETY: the run lies within the mapping and belongs to this buffer alone; the handle cannot be copied
        // and is moved into the engine while the kernel uses the memory, so no other reference exists.
        unsafe { std::slice::from_raw_parts_mut(self.address(buffer), buffer.len()) }
    }

    /// The bytes of a buffer to be filled from others, and of those others.
    pub(super) fn bytes_from<'p>(
        &'p mut self,
        buffer: &'p mut Buffer,
        others: [Option<&'p Buffer>; 2],
    ) -> (&'p mut [u8], [Option<&'p [u8]>; 2]) {
        let others = others.map(|other| {
            other.map(|other| {
                // SAFETY: as in `bytes_mut`; the runs of different handles never overlap, and the shared borrow of this
                // handle keeps it from being written to.
                unsafe { std::slice::from_raw_parts(self.address(other).cast_const(), other.len()) }
            })
        });
        // SAFETY: as in `bytes_mut`.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.address(buffer), buffer.len()) };
        (bytes, others)
    }

    /// All of the memory, for the kernel.
    pub(super) fn as_iovec(&self) -> libc::iovec {
        libc::iovec {
            iov_base: self.memory.as_ptr().cast(),
            iov_len: self.in_use.len() * PAGE_BYTES,
        }
    }

    /// Where the buffer begins.
    pub(super) fn address(&self, buffer: &Buffer) -> *mut u8 {
        // SAFETY: the page number came from `allocate`, so the result is within the mapping.
        unsafe { self.memory.as_ptr().add(buffer.first_page as usize * PAGE_BYTES) }
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        if self.in_use.is_empty() {
            return;
        }
        // SAFETY: the mapping is ours; the engine has seen every operation on it end before it drops the pool.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), self.in_use.len() * PAGE_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_pool_gives_what_it_has() {
        let mut pool = BufferPool::new(4 * PAGE_BYTES).unwrap();
        let one = pool.allocate(PAGE_BYTES + 1).unwrap();
        assert_eq!((one.len(), one.pages()), (PAGE_BYTES + 1, 0..2));
        let two = pool.allocate(100 * PAGE_BYTES).unwrap();
        assert_eq!((two.len(), two.pages()), (2 * PAGE_BYTES, 2..4));
        assert!(pool.allocate(1).is_none());
        pool.free(one);
        assert_eq!(pool.allocate(512).unwrap().pages(), 0..1);
    }

    #[test]
    fn a_buffer_is_filled_from_others() {
        let mut pool = BufferPool::new(4 * PAGE_BYTES).unwrap();
        let mut into = pool.allocate(PAGE_BYTES).unwrap();
        let mut from = pool.allocate(2 * PAGE_BYTES).unwrap();
        pool.bytes_mut(&mut from).fill(7);
        let (bytes, [first, second]) = pool.bytes_from(&mut into, [None, Some(&from)]);
        assert!(first.is_none());
        bytes.copy_from_slice(&second.unwrap()[PAGE_BYTES..]);
        assert!(pool.bytes_mut(&mut into).iter().all(|byte| *byte == 7));
        pool.free(into);
        pool.free(from);
    }

    proptest! {
        #[test]
        fn buffers_never_overlap_and_all_memory_comes_back(
            steps in proptest::collection::vec((any::<bool>(), 1..20 * PAGE_BYTES), 1..200)
        ) {
            let mut pool = BufferPool::new(32 * PAGE_BYTES).unwrap();
            let mut held: Vec<(Buffer, u8)> = Vec::new();
            for (number, (take, want)) in steps.into_iter().enumerate() {
                let mark = number as u8;
                if take {
                    if let Some(mut buffer) = pool.allocate(want) {
                        prop_assert!(buffer.len() == want || buffer.len() % PAGE_BYTES == 0);
                        pool.bytes_mut(&mut buffer).fill(mark);
                        held.push((buffer, mark));
                    } else {
                        prop_assert!(pool.in_use.iter().all(|used| *used));
                    }
                } else if !held.is_empty() {
                    let (mut buffer, mark) = held.swap_remove(want % held.len());
                    prop_assert!(pool.bytes_mut(&mut buffer).iter().all(|byte| *byte == mark));
                    pool.free(buffer);
                }
            }
            for (buffer, _) in held {
                pool.free(buffer);
            }
            prop_assert_eq!(pool.allocate(usize::MAX / 2).unwrap().len(), 32 * PAGE_BYTES);
        }
    }
}
