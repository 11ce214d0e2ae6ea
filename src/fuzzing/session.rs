//! A frontend's connection: messages with descriptors, and what the guest does to its memory meanwhile.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sealblk_proto::keys::LineageKey;

use super::descriptors::{MOST, Sender, listener, memory, send};
use super::input::Input;
use crate::barrier::Barrier;
use crate::crypto::DiskCipher;
use crate::disk::Disk;
use crate::limits::{MAX_MESSAGE_BYTES, MAX_QUEUES};
use crate::store::layered::{NewStore, ObjectId, Uuid};
use crate::store::{FilePair, LayeredFile, RawStore, Store};
use crate::units::{ByteLen, Capacity};
use crate::vhost::{Crew, QueueContext, Server, Tuning};

/// How long an answer, or the end of the connection, may take: seconds on a machine that has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(120);
/// Most steps of one input: what is sent without reading the answers fits the socket's buffer.
const STEPS: usize = 32;
/// Of the guest's memory.
const GUEST_BYTES: u64 = 64 << 10;
const SIZE: u64 = 1 << 20;
/// Request of which the answer shows that all before it have been handled.
const GET_FEATURES: u32 = 1;

/// What a step does. Below these: the message of that number.
mod step {
    /// Bytes that are no message.
    pub(super) const RAW: u8 = 64;
    /// The guest writes to its memory.
    pub(super) const WRITE: u8 = 65;
    /// The guest kicks.
    pub(super) const KICK: u8 = 66;
    /// The frontend cuts the memory short.
    pub(super) const TRUNCATE: u8 = 67;
    /// A message with any header.
    pub(super) const HEADER: u8 = 68;
    /// All before has been handled.
    pub(super) const SYNC: u8 = 69;
    /// A message with a long body of zeros.
    pub(super) const LONG: u8 = 70;
    /// A well-behaved frontend sets the first queue up.
    pub(super) const SET_UP: u8 = 71;
    pub(super) const COUNT: u8 = 72;
}

/// Disks that are served as long as the process lives, each to one frontend after another.
struct Stage {
    _server: Server,
    address: SocketAddr,
}

/// The kinds of disks that are served.
const KINDS: usize = 3;
const QUEUES: u16 = 2;

fn stage(kind: usize) -> &'static Stage {
    static STAGES: [OnceLock<Stage>; KINDS] = [const { OnceLock::new() }; KINDS];
    STAGES[kind].get_or_init(|| {
        let context = context(disk(kind == 1, kind == 2));
        let (listener, address) = listener();
        let server = Server::start(listener, context, QUEUES).expect("a server");
        Stage {
            _server: server,
            address,
        }
    })
}

pub(super) fn context(disk: Disk) -> QueueContext {
    let barrier = Arc::new(Barrier::default());
    let crew = Crew::new(QUEUES.into()).expect("threads");
    QueueContext::new(Arc::new(disk), barrier, Tuning::default(), crew)
}

/// A small disk in memory.
pub(super) fn disk(layered: bool, read_only: bool) -> Disk {
    let capacity = Capacity::new(ByteLen(SIZE)).expect("a size for a disk");
    let key = LineageKey::new_with(|key| *key = [0x5a; 32]).expect("locked memory");
    let cipher = DiskCipher::derive(&key, capacity).expect("locked memory");
    let store = if layered {
        Store::Layered(layered_file(capacity))
    } else {
        Store::Raw(RawStore::open(memory(SIZE), capacity).expect("a store"))
    };
    Disk::new(capacity, read_only, "disk-fuzzing", Some(cipher), store)
}

fn layered_file(capacity: Capacity) -> LayeredFile {
    let new = NewStore {
        uuid: Uuid([1; 16]),
        capacity,
        disk: ObjectId([b'd'; 16]),
        lineage: ObjectId([b'l'; 16]),
    };
    let data = memory(0);
    let path = format!("/proc/self/fd/{}", data.as_raw_fd());
    let metadata = File::options().read(true).write(true).open(path);
    let metadata = metadata.expect("another description of the file");
    LayeredFile::create(FilePair { data, metadata }, Vec::new(), &new, None).expect("a store")
}

/// The other side of a connection.
struct Frontend {
    stream: UnixStream,
    sender: Sender,
    /// Answers to [`GET_FEATURES`] that are on their way.
    expected: usize,
    /// Whether the next byte that is sent begins a message.
    is_framed: bool,
}

/// The backend has ended the connection.
struct Ended;

/// One connection: the messages that the input has, and its end.
pub fn session(data: &[u8]) {
    let mut input = Input::new(data);
    let stage = stage(input.index(KINDS));
    let stream = UnixStream::connect_addr(&stage.address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let mut frontend = Frontend {
        stream,
        sender: Sender::new(GUEST_BYTES),
        expected: 0,
        is_framed: true,
    };
    for _ in 0..STEPS {
        if input.is_empty() || frontend.step(&mut input).is_err() {
            break;
        }
    }
    frontend.end();
}

impl Frontend {
    fn step(&mut self, input: &mut Input<'_>) -> Result<(), Ended> {
        match input.byte() % step::COUNT {
            step::RAW => {
                self.is_framed = false;
                self.send(input.counted(), &[])
            }
            step::WRITE => {
                let (at, bytes) = (input.short(), input.counted());
                // Longer than it was, if need be: that, too, a frontend can do.
                self.sender.memory.write_all_at(bytes, at.into()).expect("memory");
                Ok(())
            }
            step::KICK => {
                self.sender.kick();
                Ok(())
            }
            step::TRUNCATE => {
                self.sender.memory.set_len(input.short().into()).expect("memory");
                Ok(())
            }
            step::HEADER => {
                self.is_framed = false;
                let header = [input.word(), input.word(), input.word()];
                self.message(header, input.counted(), &[])
            }
            step::SYNC => self.sync(),
            step::LONG => {
                let (code, length) = (input.byte(), usize::from(input.short()) % (MAX_MESSAGE_BYTES + 2));
                self.is_framed &= length <= MAX_MESSAGE_BYTES;
                self.message([code.into(), 1, length as u32], &vec![0; length], &[])
            }
            step::SET_UP => self.set_up(input.byte()),
            code => {
                let flags = input.byte();
                let count = usize::from(flags >> 1) % MOST;
                let descriptors: Vec<_> = (0..count).map(|_| self.sender.descriptor(input.byte())).collect();
                let length = usize::from(input.short()) % (MAX_MESSAGE_BYTES + 1);
                let body = input.bytes(length);
                let header = [code.into(), 1 | u32::from(flags & 1) << 3, body.len() as u32];
                self.message(header, body, &descriptors)
            }
        }
    }

    /// With these virtio features, as far as there are any: bits 9, 13, 14 and 29, and what is always needed.
    fn set_up(&mut self, features: u8) -> Result<(), Ended> {
        let wanted = [9, 13, 14, 29];
        let bits = wanted.iter().enumerate();
        let optional = bits.filter(|(index, _)| features >> index & 1 == 1);
        let features = optional.fold(1u64 << 32 | 1 << 30, |all, (_, bit)| all | 1 << bit);
        let long = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|word| word.to_ne_bytes()).collect() };
        let vring = |number: u32| -> Vec<u8> { [0u32.to_ne_bytes(), number.to_ne_bytes()].concat() };
        let protocol = 0b1011_0010_0010_1001;
        self.message([2, 1, 8], &long(&[features]), &[])?;
        self.message([16, 1, 8], &long(&[protocol]), &[])?;
        let memory = self.sender.descriptor(0);
        self.message([5, 1, 40], &long(&[1, 0, GUEST_BYTES, 0, 0]), &[memory])?;
        self.message([8, 1, 8], &vring(16), &[])?;
        self.message([9, 1, 40], &long(&[0, 0, 0x2000, 0x1000, 0]), &[])?;
        self.message([10, 1, 8], &vring(0), &[])?;
        for (code, kind) in [(13, 1), (14, 1), (12, 1)] {
            let descriptor = self.sender.descriptor(kind);
            self.message([code, 1, 8], &long(&[0]), &[descriptor])?;
        }
        self.message([18, 1, 8], &vring(1), &[])
    }

    fn message(&mut self, header: [u32; 3], body: &[u8], descriptors: &[OwnedFd]) -> Result<(), Ended> {
        self.expected += usize::from(header[0] == GET_FEATURES);
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend_from_slice(body);
        self.send(&bytes, descriptors)
    }

    fn send(&mut self, bytes: &[u8], descriptors: &[OwnedFd]) -> Result<(), Ended> {
        if bytes.is_empty() {
            return Ok(());
        }
        let sent = send(&self.stream, bytes, descriptors).map_err(|error| self.ended(&error))?;
        (&self.stream)
            .write_all(&bytes[sent..])
            .map_err(|error| self.ended(&error))
    }

    /// What an error means: the end, or that the backend has stopped to answer.
    fn ended(&self, error: &std::io::Error) -> Ended {
        assert!(
            !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "the backend does not answer"
        );
        Ended
    }

    /// Waits until all that was sent has been handled.
    fn sync(&mut self) -> Result<(), Ended> {
        if !self.is_framed {
            return Ok(());
        }
        self.message([GET_FEATURES, 1, 0], &[], &[])?;
        while self.expected > 0 {
            let mut header = [0; 12];
            self.read(&mut header)?;
            let word =
                |index: usize| u32::from_ne_bytes(header[4 * index..][..4].try_into().expect("4 bytes"));
            assert_eq!(word(1), 5, "version 1, and the flag of a reply");
            assert!(
                word(2) as usize <= MAX_MESSAGE_BYTES,
                "an answer of {} bytes",
                word(2)
            );
            let mut body = vec![0; word(2) as usize];
            self.read(&mut body)?;
            self.expected -= usize::from(word(0) == GET_FEATURES);
        }
        Ok(())
    }

    fn read(&self, bytes: &mut [u8]) -> Result<(), Ended> {
        (&self.stream)
            .read_exact(bytes)
            .map_err(|error| self.ended(&error))
    }

    /// Hangs up, and waits for the other side to do so.
    fn end(self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        let mut rest = [0; 4096];
        loop {
            match (&self.stream).read(&mut rest) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    self.ended(&error);
                    return;
                }
            }
        }
    }
}

const _: () = assert!(MAX_QUEUES >= 2);
