//! Guest memory is a file of the frontend's, and the frontend may cut it short while it is mapped here. Touching
//! the lost part raises SIGBUS; that must end the session, not the process.
//!
//! The handler puts fresh zero pages over the whole mapping that has faulted and notes it. Whoever has copied from
//! guest memory asks [`MappedRange::has_faulted`] before it uses the copy.
#![allow(unsafe_code)]

mod span;

use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use span::Span;

use crate::limits::{MAX_MEMORY_REGIONS, MAX_SESSIONS};

/// Room for the old and the new memory table of each session at once, with its memory for chains in flight.
const SLOTS: usize = 2 * MAX_SESSIONS * (MAX_MEMORY_REGIONS + 1);

/// What [`span`] takes from the standard library. `tests/loom_map` compiles it with loom's types in this module's place.
mod sync {
    pub(super) use std::sync::atomic::{AtomicUsize, Ordering};
}

struct Slot {
    span: Span,
    claimed: AtomicBool,
    faulted: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        span: Span {
            generation: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
        },
        claimed: AtomicBool::new(false),
        faulted: AtomicBool::new(false),
    }
}; SLOTS];

/// Mappings that have faulted since the process began: most processes see none, and then nobody needs to look further.
static FAULTS: AtomicUsize = AtomicUsize::new(0);

/// Whether any mapping has ever faulted.
pub(super) fn has_any_faulted() -> bool {
    FAULTS.load(Ordering::Acquire) != 0
}

/// A mapping that may fault. To be dropped before the mapping is unmapped.
#[derive(Debug)]
pub(super) struct MappedRange {
    slot: usize,
}

impl MappedRange {
    /// Guards the mapping of `len` bytes at `start`.
    pub(super) fn guard(start: *mut u8, len: usize) -> io::Result<Self> {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(install_handler);
        let claim =
            |slot: &Slot| !slot.claimed.load(Ordering::Relaxed) && !slot.claimed.swap(true, Ordering::AcqRel);
        let slot = TABLE
            .iter()
            .position(claim)
            .ok_or_else(|| io::Error::other("too many mappings"))?;
        TABLE[slot].faulted.store(false, Ordering::Relaxed);
        TABLE[slot].span.set(start as usize, len);
        Ok(MappedRange { slot })
    }

    /// Whether part of the mapping was lost: what was read from it since may be zeros that nobody wrote.
    pub(super) fn has_faulted(&self) -> bool {
        TABLE[self.slot].faulted.load(Ordering::Acquire)
    }
}

impl Drop for MappedRange {
    fn drop(&mut self) {
        TABLE[self.slot].span.clear();
        TABLE[self.slot].claimed.store(false, Ordering::Release);
    }
}

fn install_handler() {
    // SAFETY: all-zero is a valid sigaction; it is filled in before use.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: `handle` is async-signal-safe: atomics, mmap and signal are all it uses.
    let result = unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) };
    assert_eq!(result, 0, "SIGBUS can be handled");
}

extern "C" fn handle(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a SA_SIGINFO handler; SIGBUS carries an address.
    let address = unsafe { (*info).si_addr() } as usize;
    for slot in &TABLE {
        // The mapping that has faulted stays while its user is here. Others may come and go.
        let Some((start, len)) = slot.span.get() else {
            continue;
        };
        if !(start..start + len).contains(&address) {
            continue;
        }
        slot.faulted.store(true, Ordering::Release);
        FAULTS.fetch_add(1, Ordering::Release);
        // The whole mapping, since part of a huge page cannot be replaced. Shared, for that does not count as this process's
        // data (RLIMIT_DATA).
        let flags = libc::MAP_FIXED | libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: replaces a mapping that its owner has registered and not yet unmapped. Guest memory is only
        // accessed volatile, so a change of contents is nothing new.
        let mapped = unsafe { libc::mmap(start as *mut libc::c_void, len, protection, flags, -1, 0) };
        if mapped != libc::MAP_FAILED {
            return;
        }
    }
    // Not guest memory: a fault of our own. The instruction is repeated and ends the process.
    // SAFETY: resetting a handler is async-signal-safe.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

    use super::*;

    #[test]
    fn memory_that_is_cut_short_reads_zeros_and_is_noted() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(0x4000).unwrap();
        let region =
            MmapRegion::<()>::from_file(FileOffset::new(file.try_clone().unwrap(), 0), 0x4000).unwrap();
        let range = MappedRange::guard(region.as_ptr(), region.size()).unwrap();
        let memory =
            GuestMemoryMmap::from_regions(vec![GuestRegionMmap::new(region, GuestAddress(0)).unwrap()])
                .unwrap();
        memory.write_obj(7u8, GuestAddress(0x3000)).unwrap();
        assert!(!range.has_faulted());
        file.set_len(0x1000).unwrap();
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x3000)).unwrap(), 0);
        assert!(range.has_faulted());
        memory.write_obj(9u8, GuestAddress(0x2000)).unwrap();
        drop(range);
    }
}
