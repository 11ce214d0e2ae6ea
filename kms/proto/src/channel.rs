//! One message a packet, with descriptors, over a Unix socket of type `SOCK_SEQPACKET`.
//!
//! The kernel keeps the packets apart, so there is no framing to get wrong, and a descriptor cannot be taken for
//! another message's. A packet larger than [`MAX_MESSAGE_BYTES`] is an error, not a longer read.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::peer::{self, PeerCredentials};

/// Largest packet, in bytes. Earlier versions receive 64 KiB; only a session of hundreds of memory regions takes more, which
/// they do not have.
pub const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// Most descriptors with one packet: a store's two, those of [`MAX_BASES`], and a key.
pub const MAX_DESCRIPTORS: usize = 2 + 2 * MAX_BASES + 1;

/// Most files that a clone reads besides its own.
pub const MAX_BASES: usize = 30;

/// Why a message was not exchanged.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side has closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The socket failed; a timeout is `WouldBlock`.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// More than [`MAX_MESSAGE_BYTES`] or [`MAX_DESCRIPTORS`].
    #[error(
        "the message is larger than {MAX_MESSAGE_BYTES} bytes or has more than {MAX_DESCRIPTORS} descriptors"
    )]
    TooLarge,
    /// Not the message that was expected.
    #[error("the message cannot be understood")]
    Malformed(#[from] serde_json::Error),
}

impl From<rustix::io::Errno> for ChannelError {
    fn from(errno: rustix::io::Errno) -> Self {
        ChannelError::Io(errno.into())
    }
}

impl From<OwnedFd> for Channel {
    /// A connected socket that another process has made.
    fn from(socket: OwnedFd) -> Self {
        Channel(socket)
    }
}

/// A connected socket.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Dials the socket at `path`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = seqpacket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Channel(socket))
    }

    /// Dials the socket at `path` without waiting for anybody.
    ///
    /// # Errors
    /// The kernel's: `WouldBlock` if as many wait there as can, `ConnectionRefused` if nobody listens; `InvalidInput` if there
    /// is no socket but another file, or a symbolic link.
    pub fn connect_at_once(path: &Path) -> io::Result<Self> {
        // What is looked at is what is dialled, whatever becomes of the name.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::Socket {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let socket = seqpacket()?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::net::connect(&socket, &SocketAddrUnix::new(name)?)?;
        rustix::io::ioctl_fionbio(&socket, false)?;
        Ok(Channel(socket))
    }

    /// Two connected ends, for tests.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Channel(one), Channel(other)))
    }

    /// Sends one message with descriptors, which the other side receives as its own.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn send<M: Serialize>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        send_on(self.0.as_fd(), message, descriptors)
    }

    /// Waits for one message and its descriptors.
    ///
    /// # Errors
    /// [`ChannelError`]. Descriptors that came with a bad message are closed.
    pub fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        receive_on(self.0.as_fd())
    }

    /// Bounds every later send and receive; `None` waits for ever.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        set_socket_timeout(&self.0, Timeout::Recv, timeout)?;
        set_socket_timeout(&self.0, Timeout::Send, timeout)?;
        Ok(())
    }

    /// Ends the connection for both sides; a thread that waits in [`Channel::receive`] wakes up.
    pub fn shutdown(&self) {
        // The only failure is that the connection has ended already.
        let _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }

    /// Another handle on the same connection.
    ///
    /// # Errors
    /// The kernel's.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Channel(self.0.try_clone()?))
    }

    /// Who is on the other side.
    ///
    /// # Errors
    /// The kernel's.
    pub fn peer(&self) -> io::Result<PeerCredentials> {
        peer::credentials(self.0.as_fd())
    }
}

/// [`Channel::send`] on a socket that is held otherwise, as by an asynchronous runtime.
///
/// # Errors
/// [`ChannelError`].
pub fn send_on<M: Serialize>(
    socket: BorrowedFd<'_>,
    message: &M,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    // The first message has a token in it.
    let bytes = Zeroizing::new(serde_json::to_vec(message)?);
    if bytes.len() > MAX_MESSAGE_BYTES || descriptors.len() > MAX_DESCRIPTORS {
        return Err(ChannelError::TooLarge);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(ChannelError::TooLarge);
    }
    let sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            socket,
            &[IoSlice::new(&bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
    });
    match sent {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(ChannelError::Closed),
        Err(errno) => Err(errno.into()),
    }
}

/// [`Channel::receive`] on a socket that is held otherwise, as by an asynchronous runtime.
///
/// # Errors
/// [`ChannelError`]. Descriptors that came with a bad message are closed.
pub fn receive_on<M: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<(M, Vec<OwnedFd>), ChannelError> {
    let mut bytes = Zeroizing::new(vec![0; MAX_MESSAGE_BYTES]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    });
    let received = match received {
        Ok(received) => received,
        Err(rustix::io::Errno::CONNRESET) => return Err(ChannelError::Closed),
        Err(errno) => return Err(errno.into()),
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(ChannelError::TooLarge);
    }
    if received.bytes == 0 {
        return Err(ChannelError::Closed);
    }
    Ok((serde_json::from_slice(&bytes[..received.bytes])?, descriptors))
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A socket that has its path and on which nobody can connect yet.
#[derive(Debug)]
pub struct Bound(OwnedFd);

impl Bound {
    /// Binds `path`, which must not exist.
    ///
    /// # Errors
    /// The kernel's; `AddrInUse` if the path exists.
    pub fn at(path: &Path) -> io::Result<Self> {
        let socket = seqpacket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Bound(socket))
    }

    /// From now on others can connect; they see the user that this process has now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen(self) -> io::Result<Listener> {
        rustix::net::listen(&self.0, 16)?;
        Ok(Listener(self.0))
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Binds `path`, which must not exist.
    ///
    /// # Errors
    /// The kernel's; `AddrInUse` if the path exists.
    pub fn bind(path: &Path) -> io::Result<Self> {
        Bound::at(path)?.listen()
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The kernel's.
    pub fn accept(&self) -> io::Result<Channel> {
        let socket = rustix::io::retry_on_intr(|| rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC))?;
        Ok(Channel(socket))
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        listener.0
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn seqpacket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::message::{Command, Request};

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (one, other) = Channel::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"through").unwrap();
        let request = Request {
            id: 9,
            command: Command::Detach { force: true },
        };
        one.send(&request, &[file.as_fd(), file.as_fd()]).unwrap();
        let (received, descriptors) = other.receive::<Request>().unwrap();
        assert_eq!(
            (received.id, received.command),
            (9, Command::Detach { force: true })
        );
        assert_eq!(descriptors.len(), 2);
        let mut text = String::new();
        let mut again = std::fs::File::from(descriptors.into_iter().next().unwrap());
        std::io::Seek::rewind(&mut again).unwrap();
        again.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn garbage_and_oversize_are_errors_and_the_connection_goes_on() {
        let (one, other) = Channel::pair().unwrap();
        rustix::net::send(&one.0, b"{\"id\":", SendFlags::empty()).unwrap();
        assert!(matches!(
            other.receive::<Request>(),
            Err(ChannelError::Malformed(_))
        ));
        rustix::net::send(&one.0, &vec![b' '; MAX_MESSAGE_BYTES + 1], SendFlags::empty()).unwrap();
        assert!(matches!(other.receive::<Request>(), Err(ChannelError::TooLarge)));
        assert!(matches!(
            one.send(&"x".repeat(MAX_MESSAGE_BYTES), &[]),
            Err(ChannelError::TooLarge)
        ));
        one.send(
            &Request {
                id: 1,
                command: Command::Stats,
            },
            &[],
        )
        .unwrap();
        assert_eq!(other.receive::<Request>().unwrap().0.id, 1);
        drop(one);
        assert!(matches!(other.receive::<Request>(), Err(ChannelError::Closed)));
        assert!(matches!(other.send(&1, &[]), Err(ChannelError::Closed)));
    }

    #[test]
    fn peers_are_identified_and_a_timeout_ends_a_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = Listener::bind(&path).unwrap();
        let client = Channel::connect(&path).unwrap();
        let server = listener.accept().unwrap();
        let peer = server.peer().unwrap();
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
        assert_eq!(peer.pid, rustix::process::getpid().as_raw_nonzero().get());
        client.set_timeout(Some(Duration::from_millis(10))).unwrap();
        match client.receive::<Request>() {
            Err(ChannelError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            Listener::bind(&path).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }

    #[test]
    fn who_does_not_wait_is_told_at_once_why_it_is_not_connected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let kind = |path: &Path| Channel::connect_at_once(path).unwrap_err().kind();
        assert_eq!(kind(&path), io::ErrorKind::NotFound);
        let listener = Listener::bind(&path).unwrap();
        let waiting: Vec<_> = std::iter::from_fn(|| Channel::connect_at_once(&path).ok())
            .take(100)
            .collect();
        assert!((1..100).contains(&waiting.len()));
        assert_eq!(kind(&path), io::ErrorKind::WouldBlock);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(kind(&link), io::ErrorKind::InvalidInput);
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(kind(&file), io::ErrorKind::InvalidInput);
        drop((listener, waiting));
        assert_eq!(kind(&path), io::ErrorKind::ConnectionRefused);
    }
}
