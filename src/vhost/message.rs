//! Framing: a header of 12 bytes {request, flags, size}, a body, and descriptors with the header.
//!
//! Whatever does not fit this frame ends the connection: after a bad header there is no knowing where the next
//! message begins.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use vhost::vhost_user::message::{FrontendReq, VhostUserMsgValidator};
use vm_memory::ByteValued;

use crate::limits::{MAX_MESSAGE_BYTES, MAX_MESSAGE_DESCRIPTORS};

const HEADER_BYTES: usize = 12;
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 0x3;
const FLAG_REPLY: u32 = 0x4;
const FLAG_NEED_REPLY: u32 = 0x8;

/// Why no message was received or sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum MessageError {
    #[error("the frontend has disconnected")]
    Disconnected,
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("message flags {0:#x} are no request of protocol version 1")]
    Flags(u32),
    #[error("a message body of {0} bytes is too large")]
    TooLarge(u32),
    #[error("too many descriptors with a message")]
    TooManyDescriptors,
}

/// The body is not what the request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message's body is malformed")]
pub(super) struct MalformedBody;

/// A request from the frontend.
#[derive(Debug)]
pub(super) struct Message {
    /// The request's number, known or not.
    pub code: u32,
    /// An acknowledgement is wanted (REPLY_ACK).
    pub need_reply: bool,
    /// The body.
    pub body: Vec<u8>,
    /// The descriptors that came along.
    pub files: Vec<File>,
}

impl Message {
    /// Waits for the next request.
    pub(super) fn receive(stream: &UnixStream) -> Result<Message, MessageError> {
        let mut header = [0; HEADER_BYTES];
        let (received, files) = receive_with_files(stream, &mut header)?;
        (&*stream)
            .read_exact(&mut header[received..])
            .map_err(disconnected)?;
        let word = |index: usize| u32::from_ne_bytes(header[4 * index..][..4].try_into().expect("4 bytes"));
        let (code, flags, size) = (word(0), word(1), word(2));
        if flags & VERSION_MASK != VERSION || flags & !(VERSION_MASK | FLAG_NEED_REPLY) != 0 {
            return Err(MessageError::Flags(flags));
        }
        if size as usize > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLarge(size));
        }
        let mut body = vec![0; size as usize];
        (&*stream).read_exact(&mut body).map_err(disconnected)?;
        Ok(Message {
            code,
            need_reply: flags & FLAG_NEED_REPLY != 0,
            body,
            files,
        })
    }

    /// The request, if it is one that the specification knows.
    pub(super) fn request(&self) -> Option<FrontendReq> {
        FrontendReq::try_from(self.code).ok()
    }

    /// The body as one 64-bit number.
    pub(super) fn number(&self) -> Result<u64, MalformedBody> {
        let bytes = self.body.as_slice().try_into().map_err(|_| MalformedBody)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// The body as one valid `T`.
    pub(super) fn body<T: ByteValued + Default + VhostUserMsgValidator>(&self) -> Result<T, MalformedBody> {
        let (body, rest) = self.body_and_rest()?;
        if rest.is_empty() {
            Ok(body)
        } else {
            Err(MalformedBody)
        }
    }

    /// The body as one valid `T` and what follows it.
    pub(super) fn body_and_rest<T>(&self) -> Result<(T, &[u8]), MalformedBody>
    where
        T: ByteValued + Default + VhostUserMsgValidator,
    {
        let (head, rest) = self.body.split_at_checked(size_of::<T>()).ok_or(MalformedBody)?;
        let mut body = T::default();
        body.as_mut_slice().copy_from_slice(head);
        if body.is_valid() {
            Ok((body, rest))
        } else {
            Err(MalformedBody)
        }
    }
}

/// Answers the request `code`, with a descriptor if there is one.
pub(super) fn send_reply(
    stream: &UnixStream,
    code: u32,
    body: &[u8],
    file: Option<&File>,
) -> Result<(), MessageError> {
    let header = header([code, VERSION | FLAG_REPLY, body.len() as u32]);
    let bytes = [&header[..], body].concat();
    let mut rest = bytes.as_slice();
    // With the first byte, and once.
    let mut descriptors: Vec<BorrowedFd<'_>> = file.map(AsFd::as_fd).into_iter().collect();
    while !rest.is_empty() {
        let sent = rustix::io::retry_on_intr(|| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            let parts = [IoSlice::new(rest)];
            rustix::net::sendmsg(stream, &parts, &mut ancillary, SendFlags::NOSIGNAL)
        })
        .map_err(io::Error::from)?;
        descriptors.clear();
        rest = &rest[sent..];
    }
    Ok(())
}

/// Header of a request of our own, which asks for no reply.
pub(super) fn request_header(code: u32, body_bytes: u32) -> [u8; HEADER_BYTES] {
    header([code, VERSION, body_bytes])
}

fn header(words: [u32; 3]) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    for (into, word) in bytes.chunks_exact_mut(4).zip(words) {
        into.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// Receives at least a byte into `bytes`, with the descriptors that came along.
fn receive_with_files(stream: &UnixStream, bytes: &mut [u8]) -> Result<(usize, Vec<File>), MessageError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MESSAGE_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            stream,
            &mut [IoSliceMut::new(bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    })
    .map_err(|errno| disconnected(errno.into()))?;
    let mut files = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            files.extend(rights.map(File::from));
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(MessageError::TooManyDescriptors);
    }
    match received.bytes {
        0 => Err(MessageError::Disconnected),
        bytes => Ok((bytes, files)),
    }
}

fn disconnected(error: io::Error) -> MessageError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => MessageError::Disconnected,
        _ => MessageError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vhost::vhost_user::message::VhostUserVringState;

    use super::*;

    fn frame(code: u32, flags: u32, size: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = [code, flags, size]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        bytes.extend_from_slice(body);
        bytes
    }

    fn received(bytes: &[u8]) -> Result<Message, MessageError> {
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(bytes).unwrap();
        drop(one);
        Message::receive(&other)
    }

    #[test]
    fn a_message_is_taken_apart() {
        let message = received(&frame(8, 0x9, 8, &[3, 0, 0, 0, 128, 0, 0, 0])).unwrap();
        assert_eq!(message.request(), Some(FrontendReq::SET_VRING_NUM));
        assert!(message.need_reply);
        let state: VhostUserVringState = message.body().unwrap();
        assert_eq!(({ state.index }, { state.num }), (3, 128));
        assert_eq!(message.number().unwrap(), 128 << 32 | 3);
        assert!(received(&frame(4711, 1, 0, &[])).unwrap().request().is_none());
    }

    #[test]
    fn bad_frames_are_errors() {
        assert!(matches!(received(&[]), Err(MessageError::Disconnected)));
        assert!(matches!(received(&[1, 2, 3]), Err(MessageError::Disconnected)));
        for flags in [0, 2, 5, 0x11, u32::MAX] {
            assert!(
                matches!(received(&frame(1, flags, 0, &[])), Err(MessageError::Flags(bad)) if bad == flags)
            );
        }
        assert!(matches!(
            received(&frame(1, 1, 4097, &[])),
            Err(MessageError::TooLarge(4097))
        ));
        assert!(matches!(
            received(&frame(1, 1, 9, &[0; 8])),
            Err(MessageError::Disconnected)
        ));
        let message = received(&frame(8, 1, 7, &[0; 7])).unwrap();
        assert!(message.body::<VhostUserVringState>().is_err());
        assert!(message.number().is_err());
        assert!(
            received(&frame(8, 1, 9, &[0; 9]))
                .unwrap()
                .body::<VhostUserVringState>()
                .is_err()
        );
    }

    #[test]
    fn a_reply_has_the_reply_flag() {
        let (one, mut other) = UnixStream::pair().unwrap();
        send_reply(&one, 1, &7u64.to_ne_bytes(), None).unwrap();
        let mut bytes = [0; 20];
        other.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes[..], frame(1, 5, 8, &7u64.to_ne_bytes()));
        drop(other);
        assert!(send_reply(&one, 1, &[], None).is_err());
    }
}
