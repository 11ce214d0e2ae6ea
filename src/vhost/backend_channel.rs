//! The channel on which the back-end speaks first (vhost-user, *Back-end message types*): here to say that the disk has
//! grown.
//!
//! The message asks for no reply. QEMU answers it by reading the configuration space, and tells the guest if the capacity
//! is another one.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendFlags, SocketType};
use vhost::vhost_user::message::BackendReq;

use super::message::request_header;

/// The descriptor cannot be used to speak to the frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the back-end's channel is no stream socket of this machine (AF_UNIX)")]
pub(super) struct NoStreamSocket;

/// Open while there is a frontend that has given one.
#[derive(Debug, Default)]
pub(super) struct BackendChannel(Mutex<Option<OwnedFd>>);

impl BackendChannel {
    /// Speaks to `socket` from now on.
    pub(super) fn open(&self, socket: File) -> Result<(), NoStreamSocket> {
        // Sockets of other families are locked while their owner's data is copied, which can take for ever; no flag keeps
        // us from waiting for that.
        let is_local = socket_domain(&socket) == Ok(AddressFamily::UNIX);
        if !is_local || socket_type(&socket) != Ok(SocketType::STREAM) {
            return Err(NoStreamSocket);
        }
        *self.lock() = Some(socket.into());
        Ok(())
    }

    /// Another descriptor for it, for a successor.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn duplicate(&self) -> io::Result<Option<OwnedFd>> {
        self.lock().as_ref().map(OwnedFd::try_clone).transpose()
    }

    /// The connection that it belongs to has ended.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    /// Says that the configuration space has changed. Never waits: a frontend that does not read has as many such messages
    /// before it as it needs. Returns whether there is a frontend that wants to hear of it.
    pub(super) fn config_changed(&self) -> bool {
        let mut channel = self.lock();
        let Some(socket) = &*channel else {
            return false;
        };
        let message = request_header(BackendReq::CONFIG_CHANGE_MSG.into(), 0);
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                socket,
                &[IoSlice::new(&message)],
                &mut SendAncillaryBuffer::default(),
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            )
        });
        match sent.map_err(io::Error::from) {
            Ok(len) if len == message.len() => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            outcome => {
                // Whatever followed half a message would be misunderstood.
                log::debug!("the back-end's channel is given up: {outcome:?}");
                *channel = None;
                false
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn the_message_is_as_specified() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let channel = BackendChannel::default();
        assert!(!channel.config_changed());
        channel.open(OwnedFd::from(ours).into()).unwrap();
        assert!(channel.config_changed());
        channel.close();
        assert!(!channel.config_changed());
        let mut bytes = Vec::new();
        theirs.read_to_end(&mut bytes).unwrap();
        // VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, version 1 without NEED_REPLY, no body.
        let words = [2u32, 1, 0].map(u32::to_ne_bytes);
        assert_eq!(bytes, words.concat());
    }

    #[test]
    fn a_frontend_that_does_not_read_holds_nobody_up() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let channel = BackendChannel::default();
        channel.open(OwnedFd::from(ours).into()).unwrap();
        // More than any socket buffer takes.
        assert!((0..100_000).all(|_| channel.config_changed()));
        channel.close();
        let mut bytes = Vec::new();
        theirs.read_to_end(&mut bytes).unwrap();
        assert!(!bytes.is_empty() && bytes.len().is_multiple_of(12) && bytes.len() < 1_200_000);
    }

    #[test]
    fn a_frontend_that_has_gone_is_forgotten() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let channel = BackendChannel::default();
        channel.open(OwnedFd::from(ours).into()).unwrap();
        drop(theirs);
        assert!(!channel.config_changed());
        assert!(channel.lock().is_none());
    }

    #[test]
    fn only_a_stream_socket_of_this_machine_is_taken() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let datagrams = UnixDatagram::unbound().unwrap();
        let others = [
            tempfile::tempfile().unwrap(),
            OwnedFd::from(tcp).into(),
            OwnedFd::from(datagrams).into(),
        ];
        for other in others {
            assert_eq!(BackendChannel::default().open(other), Err(NoStreamSocket));
        }
    }
}
