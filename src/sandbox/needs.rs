//! How much a process may come to need.

use std::os::fd::BorrowedFd;

/// What a process needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs<'a> {
    /// Most queues that it will serve at a time.
    pub queues: usize,
    /// Bytes of the disk, or of the larger one of two.
    pub size: u64,
    /// Whether a store grows with what is written, or with the disk.
    pub layered: bool,
    /// Whether it copies, and so may read an image.
    pub copies: bool,
    /// Whether no other program has its user.
    pub own_user: bool,
    /// Where it has made a socket that it will remove.
    pub directory: Option<BorrowedFd<'a>>,
}
