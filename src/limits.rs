//! Every limit on what a guest or a frontend controls, in one place.

use std::time::Duration;

use crate::units::{Capacity, SECTOR_BYTES};

/// Most virtqueues of one disk.
pub const MAX_QUEUES: u16 = 16;

/// Most sessions of one disk, each with its frontend: a shared disk's attachments.
pub const MAX_SESSIONS: usize = 16;

/// Most entries of one virtqueue.
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// Most data segments of one request (`seg_max`, virtio 1.2, section 5.2.4): QEMU's default queue of 128
/// entries less the header and the status.
pub const MAX_SEGMENTS: u32 = 126;

/// Most descriptors of a request that is carried out: twice what a driver that obeys `seg_max` needs, since it may split
/// header and data further (virtio 1.2, section 2.7.4.1). Bounds the memory that a request can take.
pub const MAX_CHAIN_DESCRIPTORS: usize = 256;

/// Most descriptors that are read of one chain, to find the status of a request that is too long: a chain is no longer than
/// its queue (virtio 1.2, section 2.7.5.3.1). Bounds the time that a chain can take.
pub const MAX_CHAIN_LENGTH: usize = MAX_QUEUE_SIZE as usize;

/// Private buffer memory of one queue's worker, in bytes. Larger requests are done in parts.
pub const BUFFER_BYTES: usize = 4 << 20;

/// Largest single transfer to or from the store, in bytes.
pub const MAX_TRANSFER_BYTES: usize = 256 << 10;

/// Largest vhost-user message body, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 4096;

/// Most memory regions of one guest, as other backends have it: KVM's 512 slots, less three of its own.
pub const MAX_MEMORY_REGIONS: usize = 509;

/// Most descriptors with one vhost-user message; QEMU sends at most 8 regions in one.
pub const MAX_MESSAGE_DESCRIPTORS: usize = 32;

/// Most descriptors of one session: its sockets, the memory for chains in flight, the regions, and three of each queue.
pub const MAX_SESSION_DESCRIPTORS: usize = 4 + MAX_MEMORY_REGIONS + 3 * MAX_QUEUES as usize;

/// Longest hold of a quiesce, in milliseconds.
pub const MAX_HOLD_MS: u64 = 30_000;

/// Longest end of the process, from SIGTERM or from the end of its service on: the rest of what is in flight, the last sync
/// and the last checkpoint.
pub const END_PATIENCE: Duration = Duration::from_secs(20);

/// Stack of one queue's worker, in bytes. It is locked memory, because ciphers spill round keys onto it; those of all
/// queues of a session stay within the usual limit of 8 MiB.
pub const WORKER_STACK_BYTES: usize = 256 << 10;

/// Queues that a shared disk's process is prepared for, at least, so that attachments can be added.
pub const SHARED_QUEUES: usize = 64;

/// Open files that a process started by root may have: those of all sessions, and once more while they are handed over;
/// and two rings for each queue.
pub const DESCRIPTORS: u64 =
    (2 * MAX_SESSIONS * MAX_SESSION_DESCRIPTORS + 2 * MAX_SESSIONS * MAX_QUEUES as usize + 1024) as u64;

/// Memory that a process started by root may lock, in bytes: stacks, and a page for each TiB's keys.
pub const LOCKED_BYTES: u64 = 80 << 20;
const _: () = assert!(
    WORKER_STACK_BYTES * MAX_QUEUES as usize * MAX_SESSIONS + KEY_PAGES * 4096
        <= LOCKED_BYTES as usize - (8 << 20)
);

const _: () = assert!(WORKER_STACK_BYTES * MAX_QUEUES as usize + KEY_PAGES * 4096 <= 6 << 20);

/// Sectors under one key pair: 1 TiB, 2³⁶ AES blocks, the lowest key-scope limit that IEEE 1619-2025 names.
pub const SEGMENT_SECTORS: u64 = (1 << 40) / SECTOR_BYTES as u64;

/// Pages of keys of the largest disk, one for each TiB. With the stacks they leave room for what else is locked.
const KEY_PAGES: usize = Capacity::LARGEST.sectors().div_ceil(SEGMENT_SECTORS) as usize;

/// Largest read or write request, in bytes. A chain may name the same memory again and again, so that without a limit
/// a few requests could keep a drain busy for hours. Far above what drivers send: Linux stays at 1.25 MiB.
pub const MAX_REQUEST_BYTES: u64 = 32 << 20;

/// Bytes of a queue's requests that may wait for buffers before no further chain is taken.
pub const MAX_WAITING_BYTES: u64 = 64 << 20;

/// Most segments of one DISCARD or WRITE_ZEROES request (`max_discard_seg`, virtio 1.2, section 5.2.4): as QEMU's own disks.
pub const MAX_DISCARD_SEGMENTS: u32 = 1;

/// The same, of a driver that may have been told so by an earlier version.
pub const MAX_DISCARD_SEGMENTS_ONCE: u32 = 64;

/// Largest segment of one, in sectors (`max_discard_sectors`): 1 GiB.
pub const MAX_DISCARD_SECTORS: u32 = 1 << 21;

/// Bytes to be discarded that wait as long, and so count as much, as one byte to be transferred: the largest request
/// fills [`MAX_WAITING_BYTES`].
pub const DISCARD_BYTES_PER_WAITING_BYTE: u64 = 1024;

/// Parts of requests that need no transfer, such as what reads as zeros, and that are done before a worker looks at its
/// queue and at what has completed again.
pub const MAX_STEPS_WITHOUT_TRANSFER: u32 = 64;

/// Attempts at a transfer that the kernel interrupts.
pub const MAX_ATTEMPTS: u32 = 1000;

/// Longest time that a queue's worker may be told to look for work before it sleeps, in microseconds.
pub const MAX_POLL_MICROS: u64 = 1000;

/// Most files that a clone reads besides its own.
pub const MAX_BASES: usize = sealblk_proto::channel::MAX_BASES;

/// Most snapshots of a layered store.
pub const MAX_SNAPSHOTS: usize = 1024;
