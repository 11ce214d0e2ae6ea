//! The API's connection, over which a caller can pass an open file with a request (`SCM_RIGHTS`, unix(7)).
//!
//! A connection keeps one file, until a request takes it; all others that come are closed.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use crate::passed::Passed;

/// The file that is to be passed, or has come.
#[derive(Clone, Debug, Default)]
pub struct Slot(Arc<Mutex<Option<Passed>>>);

impl Slot {
    fn look(&self) -> MutexGuard<'_, Option<Passed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes the file with what is written next.
    pub fn put(&self, file: OwnedFd) {
        *self.look() = Some(Passed::new(file));
    }

    /// What has come; once.
    pub(crate) fn take(&self) -> Option<Passed> {
        self.look().take()
    }
}

/// A stream that passes files besides bytes.
#[derive(Debug)]
pub struct Passing {
    stream: UnixStream,
    received: Slot,
    outgoing: Slot,
}

impl Passing {
    /// Over a connection.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Passing {
            stream,
            received: Slot::default(),
            outgoing: Slot::default(),
        }
    }

    /// Where files are that have come.
    #[must_use]
    pub fn received(&self) -> Slot {
        self.received.clone()
    }

    /// Where a file is put that is to be passed.
    #[must_use]
    pub fn outgoing(&self) -> Slot {
        self.outgoing.clone()
    }

    fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(bytes)];
        let received =
            rustix::net::recvmsg(&self.stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            let RecvAncillaryMessage::ScmRights(files) = message else {
                continue;
            };
            // Those that are not kept are closed as they are dropped.
            for file in files.map(Passed::new) {
                self.received.look().get_or_insert(file);
            }
        }
        Ok(received.bytes)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let outgoing = self.outgoing.look();
        let Some(file) = outgoing.as_ref() else {
            return self.stream.try_write(bytes);
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let files = [file.file().as_fd()];
        if !ancillary.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = SendFlags::NOSIGNAL;
        Ok(rustix::net::sendmsg(
            &self.stream,
            &[IoSlice::new(bytes)],
            &mut ancillary,
            flags,
        )?)
    }
}

impl AsyncRead for Passing {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match self.stream.try_io(Interest::READABLE, || self.receive(unfilled)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => {
                    buffer.advance(received?);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Passing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.outgoing.look().is_none() {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        }
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_io(Interest::WRITABLE, || self.send(bytes)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => {
                    // It has gone with the first byte.
                    self.outgoing.take();
                    return Poll::Ready(sent);
                }
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn file(text: &str) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        file.into()
    }

    #[tokio::test]
    async fn one_file_is_kept_until_it_is_taken_and_none_goes_to_children() {
        let (client, server) = UnixStream::pair().unwrap();
        let (mut client, mut server) = (Passing::new(client), Passing::new(server));
        for text in ["first", "second"] {
            client.outgoing().put(file(text));
            client.write_all(b"12345").await.unwrap();
        }
        client.write_all(b"67890").await.unwrap();
        let mut bytes = [0; 15];
        server.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"123451234567890");
        let taken = server.received().take().unwrap();
        let flags = rustix::io::fcntl_getfd(taken.file()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let mut text = String::new();
        taken.file().read_to_string(&mut text).unwrap();
        assert_eq!(text, "first");
        assert!(server.received().take().is_none());
        drop(client);
        assert_eq!(server.read(&mut bytes).await.unwrap(), 0);
    }
}
