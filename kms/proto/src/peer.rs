//! The process at the other end of a socket.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The process on the other side, as the kernel saw it at `connect`, or, for who has dialled, at `listen` (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// User id.
    pub uid: u32,
    /// Process id; 0 if it is in a pid namespace of which this process sees nothing.
    pub pid: i32,
}

/// What the kernel has noted (`SO_PEERCRED`, unix(7)). Not by way of rustix, to whom a process has a number: one of another pid
/// namespace has none here.
///
/// # Errors
/// The kernel's.
pub(crate) fn credentials(socket: BorrowedFd<'_>) -> io::Result<PeerCredentials> {
    let mut found = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the descriptor is open; the kernel writes at most `length` bytes to `found`, for which all bytes are valid.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(PeerCredentials {
        uid: found.uid,
        pid: found.pid,
    })
}
