//! Writes to a frontend's eventfd that cannot block, whatever the frontend does to it.
//!
//! A frontend shares the open file of an eventfd that it has given, and so the flag that is to keep write(2) from waiting: it
//! can clear that at any moment, and fill the counter. The kernel's own writes (`eventfd_signal`) never wait; a counter that is full stays
//! so. An io_uring makes such a write to the eventfd that is registered with it whenever something completes: so each
//! interrupt is a NOP in a ring that is there for nothing else. (A write that a ring is asked for, `IORING_OP_WRITE`, is no
//! better than write(2): the kernel looks at the flag twice, and waits if it has been cleared in between.)
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode};

use super::ring::{Allowed, disabled, enter, register};

const ALLOWED: Allowed = Allowed {
    operations: &[opcode::Nop::CODE],
    flags: 0,
    registrations: &[register::EVENTFD, register::UNREGISTER_EVENTFD],
};

/// Interrupts the guest that waits for one eventfd.
pub(crate) struct Interrupter {
    ring: IoUring,
    restricted: bool,
    has_target: bool,
}

impl Interrupter {
    /// One without an eventfd.
    ///
    /// # Errors
    /// The kernel's, as for [`super::Engine::new`].
    pub(crate) fn new() -> io::Result<Self> {
        let ring = disabled().build(1)?;
        let restricted = ALLOWED.restrict(&ring);
        ring.submitter().register_enable_rings()?;
        Ok(Interrupter {
            ring,
            restricted,
            has_target: false,
        })
    }

    /// Whether the kernel refuses whatever is not done here.
    pub(crate) fn is_restricted(&self) -> bool {
        self.restricted
    }

    /// Interrupts go to `eventfd` from now on, or nowhere. It may be closed meanwhile.
    ///
    /// # Errors
    /// `EINVAL` if it is no eventfd, or the kernel's; then interrupts go nowhere.
    pub(crate) fn set(&mut self, eventfd: Option<&impl AsRawFd>) -> io::Result<()> {
        if std::mem::take(&mut self.has_target) {
            self.ring.submitter().unregister_eventfd()?;
        }
        if let Some(eventfd) = eventfd {
            self.ring.submitter().register_eventfd(eventfd.as_raw_fd())?;
            self.has_target = true;
        }
        Ok(())
    }

    /// Adds one to the eventfd's counter, if there is one and unless it is full. Never waits for anybody.
    ///
    /// # Errors
    /// The kernel's, of the ring.
    pub(crate) fn signal(&mut self) -> io::Result<()> {
        if !self.has_target {
            return Ok(());
        }
        // SAFETY: a NOP uses no memory.
        unsafe { self.ring.submission().push(&opcode::Nop::new().build()) }
            .map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        enter(&self.ring, 0)?;
        self.ring.completion().for_each(drop);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use io_uring::types::Fd;
    use rustix::event::epoll;
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;

    /// One more does not fit.
    const FULL: u64 = u64::MAX - 1;

    #[test]
    fn interrupts_go_to_the_present_eventfd() {
        let eventfd = || EventFd::new(EFD_NONBLOCK).unwrap();
        let (one, other) = (eventfd(), eventfd());
        let mut interrupter = Interrupter::new().unwrap();
        interrupter.signal().unwrap();
        interrupter.set(Some(&one)).unwrap();
        assert!(one.read().is_err(), "only when it is asked to");
        for _ in 0..100 {
            interrupter.signal().unwrap();
        }
        assert_eq!(one.read().unwrap(), 100);
        interrupter.set(Some(&other)).unwrap();
        interrupter.signal().unwrap();
        assert_eq!(other.read().unwrap(), 1);
        interrupter.set(None::<&EventFd>).unwrap();
        interrupter.signal().unwrap();
        assert!(one.read().is_err() && other.read().is_err());
    }

    #[test]
    fn a_full_counter_that_blocks_does_not_block_this() {
        let eventfd = EventFd::new(0).unwrap();
        eventfd.write(FULL).unwrap();
        let mut interrupter = Interrupter::new().unwrap();
        interrupter.set(Some(&eventfd)).unwrap();
        for _ in 0..3 {
            interrupter.signal().unwrap();
        }
        assert!(eventfd.read().unwrap() >= FULL);
        interrupter.signal().unwrap();
        assert_eq!(eventfd.read().unwrap(), 1, "and it goes on when it is emptied");
    }

    #[test]
    fn what_is_no_eventfd_is_refused() {
        let mut interrupter = Interrupter::new().unwrap();
        let (_reader, pipe) = std::io::pipe().unwrap();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let refused = [
            interrupter.set(Some(&tempfile::tempfile().unwrap())),
            interrupter.set(Some(&pipe)),
            interrupter.set(Some(&epoll)),
        ];
        for refusal in refused {
            assert_eq!(refusal.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
        interrupter.signal().unwrap();
    }

    #[test]
    fn it_can_do_nothing_else() {
        let mut interrupter = Interrupter::new().unwrap();
        assert!(interrupter.is_restricted());
        let file: File = tempfile::tempfile().unwrap();
        let byte = b"x";
        let write = opcode::Write::new(Fd(file.as_raw_fd()), byte.as_ptr(), 1).build();
        // SAFETY: the byte lives for ever.
        unsafe { interrupter.ring.submission().push(&write) }.unwrap();
        enter(&interrupter.ring, 1).unwrap();
        let refused = interrupter.ring.completion().next().unwrap();
        assert_eq!(refused.result(), -libc::EACCES);
        assert_eq!(file.metadata().unwrap().len(), 0);
        let refused = interrupter.ring.submitter().register_files(&[file.as_raw_fd()]);
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EACCES));
    }
}
