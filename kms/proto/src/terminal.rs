//! A terminal that is as it was when a signal has ended the process.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicPtr, Ordering};

const SIGNALS: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

struct Before {
    terminal: OwnedFd,
    modes: libc::termios,
}

/// What the handler gives back. It is never freed: a handler may be reading it.
static BEFORE: AtomicPtr<Before> = AtomicPtr::new(std::ptr::null_mut());

/// As long as this lives, a signal that ends the process first gives a terminal the modes that it had when this was made. A signal
/// that the process ignores or handles does as before. One at a time.
pub struct Restored([libc::sigaction; SIGNALS.len()]);

impl Restored {
    /// # Errors
    /// The kernel's.
    pub fn new(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let mut modes = MaybeUninit::uninit();
        // SAFETY: an open descriptor, and a place for what it has.
        if unsafe { libc::tcgetattr(terminal.as_raw_fd(), modes.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just written.
        let modes = unsafe { modes.assume_init() };
        BEFORE.store(
            Box::into_raw(Box::new(Before { terminal, modes })),
            Ordering::Release,
        );
        Ok(Restored(SIGNALS.map(handle)))
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        for (signal, before) in SIGNALS.iter().zip(&self.0) {
            // SAFETY: what the kernel has given for this signal.
            unsafe { libc::sigaction(*signal, before, std::ptr::null_mut()) };
        }
        BEFORE.store(std::ptr::null_mut(), Ordering::Release);
    }
}

/// Gives what was done at this signal before.
fn handle(signal: libc::c_int) -> libc::sigaction {
    // SAFETY: all zeros are a valid action, with no flags and an empty mask.
    let (mut action, mut before): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    action.sa_sigaction = restore as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESETHAND;
    // SAFETY: the handler calls nothing that must not be called in one (signal-safety(7)). A process in the background would be
    // stopped by SIGTTOU when it sets the modes.
    unsafe {
        libc::sigaddset(&mut action.sa_mask, libc::SIGTTOU);
        libc::sigaction(signal, &action, &mut before);
        if before.sa_sigaction != libc::SIG_DFL {
            libc::sigaction(signal, &before, std::ptr::null_mut());
        }
    }
    before
}

extern "C" fn restore(signal: libc::c_int) {
    // SAFETY: whatever was stored there is never freed or changed. By SA_RESETHAND the signal ends the process when this returns.
    unsafe {
        if let Some(before) = BEFORE.load(Ordering::Acquire).as_ref() {
            libc::tcsetattr(before.terminal.as_raw_fd(), libc::TCSANOW, &before.modes);
        }
        libc::raise(signal);
    }
}
