//! Every limit on what a guest or a frontend controls, in one place.

/// Most virtqueues of one disk.
pub const MAX_QUEUES: u16 = 16;

/// Most entries of one virtqueue.
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// Most data segments of one request (`seg_max`, virtio 1.2, section 5.2.4): QEMU's default queue of 128
/// entries less the header and the status.
pub const MAX_SEGMENTS: u32 = 126;

/// Most descriptors that are read of one chain: twice what a driver that obeys `seg_max` needs, since it may split
/// header and data further (virtio 1.2, section 2.7.4.1). Bounds the memory that a request can take.
pub const MAX_CHAIN_DESCRIPTORS: usize = 256;

/// Private buffer memory of one queue's worker, in bytes. Larger requests are done in parts.
pub const BUFFER_BYTES: usize = 4 << 20;

/// Largest single transfer to or from the store, in bytes.
pub const MAX_TRANSFER_BYTES: usize = 256 << 10;

/// Largest vhost-user message body, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 4096;

/// Most memory regions of one guest.
pub const MAX_MEMORY_REGIONS: usize = 32;

/// Most descriptors with one vhost-user message.
pub const MAX_MESSAGE_DESCRIPTORS: usize = 32;

/// Longest hold of a quiesce, in milliseconds.
pub const MAX_HOLD_MS: u64 = 30_000;

/// Stack of one queue's worker, in bytes. It is locked memory, because ciphers spill round keys onto it; those of all
/// queues stay within the usual limit of 8 MiB.
pub const WORKER_STACK_BYTES: usize = 256 << 10;

/// Memory that a process started by root may lock, in bytes: stacks, and a page for each TiB's keys.
pub const LOCKED_BYTES: u64 = 16 << 20;

/// Largest read or write request, in bytes. A chain may name the same memory again and again, so that without a limit
/// a few requests could keep a drain busy for hours. Far above what drivers send: Linux stays at 1.25 MiB.
pub const MAX_REQUEST_BYTES: u64 = 32 << 20;

/// Bytes of a queue's requests that may wait for buffers before no further chain is taken.
pub const MAX_WAITING_BYTES: u64 = 64 << 20;

/// Attempts at a transfer that the kernel interrupts.
pub const MAX_ATTEMPTS: u32 = 1000;

/// Most files that a clone reads besides its own.
pub const MAX_BASES: usize = sealblk_proto::channel::MAX_BASES;

/// Most snapshots of a layered store.
pub const MAX_SNAPSHOTS: usize = 1024;
