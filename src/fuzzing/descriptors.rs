//! Descriptors of many kinds, and packets with them.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{TimerfdClockId, TimerfdFlags};

/// Most descriptors with one packet here: more than anybody takes.
pub(super) const MOST: usize = 80;

/// Who sends descriptors, with the other ends of those that have one.
pub(super) struct Sender {
    /// What is sent as memory.
    pub(super) memory: File,
    /// Duplicates of the eventfds that were sent.
    pub(super) eventfds: Vec<OwnedFd>,
    /// Other ends of sockets that were sent.
    pub(super) peers: Vec<UnixStream>,
}

impl Sender {
    /// With so many bytes of memory.
    pub(super) fn new(bytes: u64) -> Self {
        Sender {
            memory: memory(bytes),
            eventfds: Vec::new(),
            peers: Vec::new(),
        }
    }

    /// A descriptor of this kind, or `/dev/null` where the system has none of it.
    pub(super) fn descriptor(&mut self, kind: u8) -> OwnedFd {
        self.of_kind(kind).unwrap_or_else(|_| null())
    }

    fn of_kind(&mut self, kind: u8) -> io::Result<OwnedFd> {
        Ok(match kind % 20 {
            0 => self.memory.try_clone()?.into(),
            1 => self.eventfd(0, EventfdFlags::NONBLOCK)?,
            2 => self.eventfd(0, EventfdFlags::empty())?,
            3 => self.eventfd(3, EventfdFlags::SEMAPHORE)?,
            4 => {
                let full = self.eventfd(0, EventfdFlags::NONBLOCK)?;
                rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes())?;
                full
            }
            5 => pipe_with(PipeFlags::CLOEXEC)?.0,
            6 => pipe_with(PipeFlags::CLOEXEC)?.1,
            7 => null(),
            8 => self.stream()?,
            9 => UnixStream::pair()?.0.into(),
            10 => {
                let kind = SocketType::SEQPACKET;
                rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?.0
            }
            11 => epoll::create(epoll::CreateFlags::CLOEXEC)?,
            12 => rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?,
            13 => rustix::fs::open("/", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?,
            14 => rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?,
            15 => sealed(32, 1)?,
            16 => sealed(2 * 16448, 0)?,
            17 => File::open(format!("/proc/self/fd/{}", self.memory.as_raw_fd()))?.into(),
            18 => huge_pages()?,
            _ => listener().0.into(),
        })
    }

    fn eventfd(&mut self, initial: u32, flags: EventfdFlags) -> io::Result<OwnedFd> {
        let made = eventfd(initial, flags | EventfdFlags::CLOEXEC)?;
        self.eventfds.push(made.try_clone()?);
        Ok(made)
    }

    /// Of which the other end stays open.
    fn stream(&mut self) -> io::Result<OwnedFd> {
        let (one, other) = UnixStream::pair()?;
        self.peers.push(other);
        Ok(one.into())
    }

    /// Wakes whoever waits for these eventfds.
    pub(super) fn kick(&self) {
        for eventfd in &self.eventfds {
            let flags = rustix::fs::fcntl_getfl(eventfd).unwrap_or(OFlags::empty());
            // Ours to wait for, otherwise.
            if flags.contains(OFlags::NONBLOCK) {
                let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
            }
        }
    }
}

/// A file in memory.
pub(super) fn memory(bytes: u64) -> File {
    let memory = rustix::fs::memfd_create("fuzzing", MemfdFlags::CLOEXEC).expect("there is memory");
    let memory = File::from(memory);
    memory.set_len(bytes).expect("a length for a file in memory");
    memory
}

fn null() -> OwnedFd {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).expect("there is /dev/null")
}

/// A file of so many bytes, all the same, whose length cannot change.
fn sealed(bytes: usize, byte: u8) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("fuzzing", flags)?;
    rustix::io::write(&file, &vec![byte; bytes])?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK)?;
    Ok(file)
}

fn huge_pages() -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("fuzzing", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB)?;
    rustix::fs::ftruncate(&file, 2 << 20)?;
    Ok(file)
}

/// A listening socket that leaves no file, and its address.
pub(super) fn listener() -> (UnixListener, SocketAddr) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("sealblk-fuzzing-{}-{number}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).expect("an abstract name");
    (
        UnixListener::bind_addr(&address).expect("a name of our own"),
        address,
    )
}

/// Sends bytes with descriptors.
pub(super) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let parts = [IoSlice::new(bytes)];
    Ok(rustix::net::sendmsg(
        socket,
        &parts,
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?)
}
