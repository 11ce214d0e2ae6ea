//! What the daemons do to themselves at their start, and what they inherit.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// No core file, no ptrace by the same user, no readable `/proc/self/mem`.
///
/// # Errors
/// The kernel's.
pub fn forbid_core_dumps() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    // SAFETY: PR_SET_DUMPABLE takes a number and touches no memory of ours.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Keeps what this process has inherited, besides the standard three, from all programs that it starts: nobody has meant it
/// for them. To be called before anything is opened.
///
/// # Errors
/// The kernel's.
pub fn keep_inherited() -> io::Result<()> {
    // SAFETY: close_range(2) takes numbers and touches no memory; with this flag it closes nothing.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Raises the soft limit of open files, which shells and systemd keep low for programs that use select(2), to the hard one.
///
/// # Errors
/// The kernel's.
pub fn raise_descriptor_limit() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// Leaves the session keyring that was inherited, with whatever keys are in it, for an empty one.
///
/// # Errors
/// The kernel's, as where keyrings are forbidden.
pub fn leave_session_keyring() -> io::Result<()> {
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING with no name takes a null pointer and touches no memory of ours.
    let joined = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    if joined == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Takes over a descriptor that the parent process has left open for this one. To be called once for each, before
/// anything else is opened.
///
/// # Errors
/// `EBADF` if it is not open; `InvalidInput` for the standard three.
pub fn inherited_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "descriptors 0 to 2 have another use",
        ));
    }
    // SAFETY: F_SETFD touches no memory, and fails for a descriptor that is not open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by this function's contract nobody else in this process has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes whatever the parent process has left open besides the standard three and `kept`. To be called before anything else
/// is opened.
///
/// # Errors
/// The kernel's: it is older than Linux 5.9.
pub fn close_inherited(kept: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<_> = kept
        .iter()
        .filter_map(|number| u32::try_from(*number).ok())
        .collect();
    kept.sort_unstable();
    let mut first = 3;
    for number in kept.into_iter().filter(|number| *number >= 3) {
        if first < number {
            close_range(first, number - 1)?;
        }
        first = number + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: by the contract of the one caller nobody in this process has any of these yet.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Tells systemd about this process (`sd_notify(3)`), if it wants to know.
///
/// # Errors
/// The kernel's, if there is someone to tell who cannot be reached.
pub fn notify(state: &str) -> io::Result<()> {
    Notifier::connect()?.map_or(Ok(()), |notifier| notifier.tell(state))
}

/// Whom systemd has named to be told: found before the process gives up all paths.
#[derive(Debug)]
pub struct Notifier(UnixDatagram);

impl Notifier {
    /// None if systemd has not started this process, or does not want to know.
    ///
    /// # Errors
    /// The kernel's, if there is someone to tell who cannot be reached.
    pub fn connect() -> io::Result<Option<Self>> {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
            return Ok(None);
        };
        let address = match path.as_encoded_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        Ok(Some(Notifier(socket)))
    }

    /// # Errors
    /// The kernel's.
    pub fn tell(&self, state: &str) -> io::Result<()> {
        self.0.send(state.as_bytes()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_process_is_not_dumpable_afterwards() {
        super::forbid_core_dumps().unwrap();
        // SAFETY: PR_GET_DUMPABLE takes and touches nothing.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }, 0);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
