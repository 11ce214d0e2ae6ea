//! Rings that can do no more than what they are for (`IORING_REGISTER_RESTRICTIONS`, Linux 5.10): they do not obey whoever
//! has taken the process over.

use std::io;
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::{Builder, IoUring};

/// Numbers of `io_uring_register(2)`, as in the kernel's `io_uring.h`.
pub(super) mod register {
    pub(in crate::io) const BUFFERS: u8 = 0;
    pub(in crate::io) const FILES: u8 = 2;
    pub(in crate::io) const EVENTFD: u8 = 4;
    pub(in crate::io) const UNREGISTER_EVENTFD: u8 = 5;
}

/// What a ring may be asked for.
pub(super) struct Allowed {
    pub operations: &'static [u8],
    /// Flags of their entries.
    pub flags: u8,
    pub registrations: &'static [u8],
}

impl Allowed {
    /// Restricts a ring that is not enabled yet. Returns whether the kernel can do that.
    pub(super) fn restrict(&self, ring: &IoUring) -> bool {
        let operations = self.operations.iter().copied().map(Restriction::sqe_op);
        let registrations = self.registrations.iter().copied().map(Restriction::register_op);
        let flags = [Restriction::sqe_flags_allowed(self.flags)];
        let mut all: Vec<Restriction> = operations.chain(registrations).chain(flags).collect();
        let outcome = ring.submitter().register_restrictions(&mut all);
        if let Err(error) = &outcome {
            log::debug!("an io_uring is not restricted: {error}");
        }
        outcome.is_ok()
    }
}

/// A builder of rings that are to be restricted, and then enabled.
pub(super) fn disabled() -> Builder {
    let mut builder = IoUring::builder();
    builder.setup_clamp().setup_r_disabled().dontfork();
    builder
}

/// Submits what is queued, and waits for so many completions.
///
/// # Errors
/// The kernel's.
pub(super) fn enter(ring: &IoUring, want: usize) -> io::Result<()> {
    loop {
        match ring.submitter().submit_and_wait(want) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The kernel is out of memory for the moment.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            // The completion queue must be emptied first; the caller is about to do that.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
