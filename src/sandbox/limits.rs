//! Resource limits (setrlimit(2)): what a process can need at most. Lowered for good, never raised.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::needs::Needs;
use crate::limits::{BUFFER_BYTES, DESCRIPTORS, MAX_QUEUES, MAX_SESSIONS, WORKER_STACK_BYTES};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Heap, stacks and messages of a process that does nothing.
const BASE_BYTES: u64 = 512 * MIB;
/// What a queue needs: its buffers, its stack, and its requests: 1024 with 256 segments each.
const QUEUE_BYTES: u64 = (BUFFER_BYTES + WORKER_STACK_BYTES) as u64 + 16 * MIB;
/// Of a layered store of the largest disk: 8 bytes for each of 2³⁰ clusters of the disk, 4 for each of 2³² of the file, once
/// more while it is checked, and its split clusters. A disk grows while it is served, so that this is not its present size.
const LAYERED_BYTES: u64 = 64 * GIB;
/// The tables of an image: 32 MiB and 256 MiB, and the same while they are read.
const IMAGE_BYTES: u64 = GIB;
/// 2³² clusters of 64 KiB.
const LARGEST_LAYERED_FILE: u64 = 1 << 48;
/// Of files that do not grow. It bounds the log.
const LARGEST_OTHER_FILE: u64 = GIB;
/// Threads beside those of queues and sessions.
const OTHER_THREADS: u64 = 32;

/// Lowers all.
pub(super) fn lower(needs: &Needs<'_>) -> Result<(), String> {
    ignore_size_signal();
    let mut limits = vec![
        (Resource::Core, 0),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Data, data_bytes(needs)),
        (Resource::Fsize, file_bytes(needs)),
    ];
    if needs.own_user {
        limits.push((Resource::Nproc, threads()));
    }
    for (resource, most) in limits {
        lower_to(resource, most).map_err(|errno| format!("{resource:?} cannot be limited: {errno}"))?;
    }
    Ok(())
}

fn lower_to(resource: Resource, most: u64) -> Result<(), Errno> {
    let present = getrlimit(resource);
    let least = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    let lowered = Rlimit {
        current: least(present.current),
        maximum: least(present.maximum),
    };
    setrlimit(resource, lowered)
}

/// Private, writable memory. Guest memory is shared.
fn data_bytes(needs: &Needs<'_>) -> u64 {
    let stores = 1 + u64::from(needs.copies);
    let layered = if needs.layered { LAYERED_BYTES * stores } else { 0 };
    let image = if needs.copies { IMAGE_BYTES } else { 0 };
    BASE_BYTES + needs.queues as u64 * QUEUE_BYTES + layered + image
}

fn file_bytes(needs: &Needs<'_>) -> u64 {
    match needs.layered {
        true => LARGEST_LAYERED_FILE,
        false => needs.size.max(LARGEST_OTHER_FILE),
    }
}

/// Of a disk with all sessions and queues; another one, also of another KMS on this host, may come to have the same user. Twice,
/// for a successor has it while it takes over. The kernel's threads that do I/O for a ring count, too: at most four for each processor.
fn threads() -> u64 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let queues = (MAX_SESSIONS * usize::from(MAX_QUEUES)) as u64 * (1 + 4 * processors);
    2 * (queues + MAX_SESSIONS as u64 + OTHER_THREADS)
}

/// A file that would become too large is an error (`EFBIG`), and no end of the process.
#[allow(unsafe_code)]
fn ignore_size_signal() {
    // SAFETY: it runs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
