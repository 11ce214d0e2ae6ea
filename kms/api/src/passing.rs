//! A connection to the API over which a caller passes an open file with a request (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// The file that is to be passed with what is written next.
#[derive(Clone, Debug, Default)]
pub struct Outgoing(Arc<Mutex<Option<OwnedFd>>>);

impl Outgoing {
    fn look(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes the file with what is written next.
    pub fn put(&self, file: OwnedFd) {
        *self.look() = Some(file);
    }
}

/// A stream that passes files besides bytes.
#[derive(Debug)]
pub struct Passing {
    stream: UnixStream,
    outgoing: Outgoing,
}

impl Passing {
    /// Over a connection.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Passing {
            stream,
            outgoing: Outgoing::default(),
        }
    }

    /// Where a file is put that is to be passed.
    #[must_use]
    pub fn outgoing(&self) -> Outgoing {
        self.outgoing.clone()
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let outgoing = self.outgoing.look();
        let Some(file) = outgoing.as_ref() else {
            return self.stream.try_write(bytes);
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
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
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
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
                    // The file has gone with the first byte.
                    *self.outgoing.look() = None;
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
