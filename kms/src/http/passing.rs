//! The API's connection, over which a caller can pass an open file with a request (`SCM_RIGHTS`, unix(7)).
//!
//! A connection keeps one file, until a request takes it. The kernel is given no room for any other, so that it closes those itself;
//! nor for one that the caller has no place for. What was received would have to be closed here, and whoever serves its file
//! system can make that take for ever (`FUSE_FLUSH`).

use crate::host::received::{Came, Slot};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use crate::host::passed::Passed;

/// A message with one descriptor (CMSG_LEN(3)). CMSG_SPACE(3), which rounds up, has room for two.
const ONE_DESCRIPTOR: usize = size_of::<libc::cmsghdr>() + size_of::<RawFd>();

/// Room for such a message, aligned as that must be: else the kernel would be given less.
#[repr(C, align(8))]
struct Room([MaybeUninit<u8>; ONE_DESCRIPTOR]);

/// A stream over which files come besides bytes; the client's is [`sealblk_api::passing`].
#[derive(Debug)]
pub(super) struct Passing {
    stream: UnixStream,
    received: Slot,
    /// A place for each file that the other side may have open here.
    places: Arc<Semaphore>,
}

impl Passing {
    /// Over a connection, from which a file is taken where there is a place for it.
    pub(super) fn new(stream: UnixStream, places: Arc<Semaphore>) -> Self {
        Passing {
            stream,
            received: Slot::default(),
            places,
        }
    }

    /// Where files are that have come.
    pub(super) fn received(&self) -> Slot {
        self.received.clone()
    }

    fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let is_free = !self.received.has_file();
        let place = match is_free {
            true => Arc::clone(&self.places).try_acquire_owned().ok(),
            false => None,
        };
        let mut room = Room([MaybeUninit::uninit(); ONE_DESCRIPTOR]);
        let mut ancillary = match place {
            Some(_) => RecvAncillaryBuffer::new(&mut room.0),
            None => RecvAncillaryBuffer::default(),
        };
        let mut parts = [IoSliceMut::new(bytes)];
        let received =
            rustix::net::recvmsg(&self.stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let file = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        if let Some(file) = file {
            *self.received.look() = Came::File(Passed::new(file, place));
        } else if is_free && received.flags.contains(ReturnFlags::CTRUNC) {
            *self.received.look() = Came::Lost;
        }
        Ok(received.bytes)
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
        Pin::new(&mut self.stream).poll_write(context, bytes)
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
    use std::os::fd::OwnedFd;

    use sealblk_api::passing as client;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn file(text: &str) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        file.into()
    }

    /// Both ends of a connection over which so many files are taken.
    fn connection(places: usize) -> (client::Passing, Passing, Arc<Semaphore>) {
        let (client, server) = UnixStream::pair().unwrap();
        let places = Arc::new(Semaphore::new(places));
        let server = Passing::new(server, Arc::clone(&places));
        (client::Passing::new(client), server, places)
    }

    async fn pass(client: &mut client::Passing, server: &mut Passing, passed: OwnedFd) {
        client.outgoing().put(passed);
        client.write_all(b"12345").await.unwrap();
        server.read_exact(&mut [0; 5]).await.unwrap();
    }

    fn taken(server: &Passing) -> Passed {
        match server.received().take() {
            Came::File(passed) => passed,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn one_file_is_kept_until_it_is_taken_and_none_goes_to_children() {
        let (mut client, mut server, _) = connection(2);
        for text in ["first", "second"] {
            pass(&mut client, &mut server, file(text)).await;
        }
        client.write_all(b"67890").await.unwrap();
        let mut bytes = [0; 5];
        server.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"67890");
        let passed = taken(&server);
        let flags = rustix::io::fcntl_getfd(passed.file()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let mut text = String::new();
        passed.file().read_to_string(&mut text).unwrap();
        assert_eq!(text, "first");
        assert!(matches!(server.received().take(), Came::Nothing));
        drop(client);
        assert_eq!(server.read(&mut bytes).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_place_is_taken_until_its_file_is_closed_and_without_one_none_comes() {
        let (mut client, mut server, places) = connection(1);
        pass(&mut client, &mut server, file("first")).await;
        let first = taken(&server);
        pass(&mut client, &mut server, file("second")).await;
        assert!(matches!(server.received().take(), Came::Lost));
        drop(first);
        // The file is closed by a thread.
        drop(places.acquire().await.unwrap());
        pass(&mut client, &mut server, file("third")).await;
        taken(&server);
    }
}
