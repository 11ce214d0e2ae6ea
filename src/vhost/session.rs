//! One connection: the negotiated features, guest memory, the queues, and what each message does to them.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};
use sealblk_proto::causes::with_causes;
use sealblk_proto::message::{Failure, code};
use vhost::vhost_user::message::{
    FrontendReq, VhostUserConfig, VhostUserMemory, VhostUserMemoryRegion, VhostUserProtocolFeatures,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddr, VhostUserVringState,
};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_WRITE_ZEROES};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::ByteValued;

use super::adoption::{AdoptedSession, SessionState};
use super::backend_channel::{BackendChannel, NoStreamSocket};
use super::config_space::ConfigSpace;
use super::features::{DriverFeatures, protocol_features, virtio_features};
use super::inflight::{InflightError, InflightLayout, InflightTable};
use super::memory::{MemoryError, MemoryTable};
use super::memory_file::MemoryFileError;
use super::message::{MalformedBody, Message, MessageError, send_reply};
use super::status::{self, Board, SessionView};
use super::vring::{QueueContext, UserAddresses, Vring, VringError};
use crate::limits::{MAX_DISCARD_SEGMENTS, MAX_DISCARD_SEGMENTS_ONCE, MAX_MEMORY_REGIONS, MAX_QUEUE_SIZE};

/// Bits of the body of SET_VRING_KICK, _CALL and _ERR: the queue's index, and "no descriptor comes with this".
const VRING_INDEX_MASK: u64 = 0xff;
const VRING_NO_DESCRIPTOR: u64 = 0x100;

/// A message that was not carried out.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("request {0} is not known or not negotiated")]
    Unsupported(u32),
    #[error(transparent)]
    Body(#[from] MalformedBody),
    #[error("features {0:#x} were never offered")]
    Features(u64),
    #[error("there is no queue {0}")]
    Queue(u64),
    #[error("a value of {0} is not allowed here")]
    Value(u64),
    #[error("{got} descriptors came with a message that needs {need}")]
    Descriptors { got: usize, need: usize },
    #[error("a kick, call or error descriptor is no eventfd")]
    NoEventfd,
    #[error("a descriptor cannot be used")]
    Descriptor(#[source] std::io::Error),
    #[error(transparent)]
    BackendChannel(#[from] NoStreamSocket),
    #[error("the memory table is unusable")]
    Memory(#[from] MemoryError),
    #[error("the machine's memory cannot be used")]
    MemoryFile(#[from] MemoryFileError),
    #[error("the memory for chains in flight is unusable")]
    Inflight(#[from] InflightError),
    #[error("the queue cannot be started")]
    Vring(#[from] VringError),
    #[error("the configuration space is read-only")]
    ReadOnlyConfig,
    #[error("the guest's addresses are a vIOMMU's, and are not translated here")]
    Translated,
}

/// What the frontend gets back.
enum Answer {
    /// The reply that belongs to the request.
    Reply(Vec<u8>),
    /// The same, with a descriptor.
    ReplyWith(Vec<u8>, File),
    /// Nothing, or an acknowledgement where one was asked for.
    Done,
}

/// The state of one connection. Dropping it drains and stops all queues.
pub(super) struct Session {
    context: QueueContext,
    pub(super) channel: Arc<BackendChannel>,
    queues: u16,
    offered: u64,
    pub(super) features: u64,
    pub(super) protocol: VhostUserProtocolFeatures,
    pub(super) vrings: Vec<Vring>,
    // After the queues, so that they go when nothing uses them any more.
    pub(super) memory: MemoryTable,
    pub(super) inflight: Option<Arc<InflightTable>>,
    /// Whether a queue has ever been set up.
    was_set_up: bool,
    /// Most segments of a DISCARD or WRITE_ZEROES that the driver may know of.
    segments: u32,
    board: Arc<Board>,
}

/// Asks a session to come to rest.
pub(super) struct Interruption<'a> {
    /// Readable when it may be time.
    pub wake: BorrowedFd<'a>,
    /// Whether it is.
    pub is_due: &'a dyn Fn() -> bool,
}

impl Session {
    pub(super) fn new(
        context: QueueContext,
        channel: Arc<BackendChannel>,
        board: Arc<Board>,
        queues: u16,
    ) -> Self {
        Session {
            channel,
            queues,
            offered: virtio_features(context.is_read_only(), context.disk.store().is_layered()),
            features: 0,
            protocol: VhostUserProtocolFeatures::empty(),
            vrings: (0..queues).map(|_| Vring::default()).collect(),
            memory: MemoryTable::default(),
            inflight: None,
            was_set_up: false,
            segments: MAX_DISCARD_SEGMENTS_ONCE,
            board,
            context,
        }
    }

    /// A predecessor's session, at rest.
    pub(super) fn adopt(
        context: QueueContext,
        channel: Arc<BackendChannel>,
        board: Arc<Board>,
        queues: u16,
        adopted: AdoptedSession,
    ) -> (UnixStream, Self) {
        let mut session = Session::new(context, channel, board, queues);
        if let Some(socket) = adopted.channel {
            // The predecessor has checked that the descriptor is a stream socket.
            let _ = session.channel.open(socket);
        }
        session.features = adopted.features;
        session.protocol = adopted.protocol;
        session.memory = adopted.memory;
        session.inflight = adopted.inflight;
        session.vrings = adopted.vrings;
        session.was_set_up = true;
        (adopted.stream, session)
    }

    /// The numbers; duplicates of the descriptors come behind `files`.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn export(&self, files: &mut Vec<OwnedFd>) -> io::Result<SessionState> {
        let channel = self.channel.duplicate()?;
        let backend_channel = channel.is_some();
        files.extend(channel);
        let inflight = match &self.inflight {
            None => None,
            Some(table) => {
                let (layout, file) = table.export()?;
                files.push(file.into());
                Some(layout)
            }
        };
        Ok(SessionState {
            features: self.features,
            protocol: self.protocol.bits(),
            backend_channel,
            inflight,
            regions: self.memory.export(files)?,
            vrings: self
                .vrings
                .iter()
                .map(|vring| vring.export(files))
                .collect::<io::Result<_>>()?,
        })
    }

    /// Serves the connection until it ends, for whatever reason, and drains the queues; or until it is interrupted between
    /// two messages, and gives itself back with the queues at rest.
    pub(super) fn serve(mut self, stream: &UnixStream, interruption: &Interruption<'_>) -> Option<Self> {
        // Of a session that was at rest.
        if let Err(error) = self.resume_all() {
            let log = |before| log::warn!("{} ({before} such before)", with_causes(&error));
            self.context.limits.messages.log(log);
        }
        loop {
            self.post();
            if wait_for_message(stream, interruption) {
                self.pause_all();
                return Some(self);
            }
            match self.serve_one(stream) {
                Ok(()) => {}
                Err(MessageError::Disconnected) => {
                    let log = |before| log::info!("the frontend has disconnected ({before} such before)");
                    self.context.limits.disconnects.log(log);
                    return None;
                }
                Err(error) => {
                    let log = |before| {
                        log::warn!(
                            "the connection ends: {} ({before} such before)",
                            with_causes(&error)
                        );
                    };
                    self.context.limits.messages.log(log);
                    return None;
                }
            }
        }
    }

    fn serve_one(&mut self, stream: &UnixStream) -> Result<(), MessageError> {
        let mut message = Message::receive(stream)?;
        let files = std::mem::take(&mut message.files);
        let acknowledge = message.need_reply && self.protocol.contains(VhostUserProtocolFeatures::REPLY_ACK);
        let mut ends = false;
        let verdict = match self.handle(&message, files) {
            Ok(Answer::Reply(body)) => return send_reply(stream, message.code, &body, None),
            Ok(Answer::ReplyWith(body, file)) => {
                return send_reply(stream, message.code, &body, Some(&file));
            }
            Ok(Answer::Done) => 0u64,
            Err(error) => {
                let refusal = self.refusal(message.code, &error);
                let log = |before| log::warn!("{} ({before} such before)", refusal.message);
                self.context.limits.messages.log(log);
                if !matches!(error, RequestError::ReadOnlyConfig) {
                    self.board.refuse(refusal);
                }
                // Without an acknowledgement the frontend would go on as if the request had been carried out;
                // only the configuration space is its own affair.
                if !acknowledge && !matches!(error, RequestError::ReadOnlyConfig) {
                    return Err(MessageError::Disconnected);
                }
                ends = matches!(error, RequestError::Translated);
                1
            }
        };
        if acknowledge {
            send_reply(stream, message.code, &verdict.to_ne_bytes(), None)?;
        }
        if ends {
            return Err(MessageError::Disconnected);
        }
        Ok(())
    }

    /// What the operator is told of a message that was refused.
    fn refusal(&self, request: u32, error: &RequestError) -> Failure {
        match error {
            RequestError::Translated => status::translated(),
            RequestError::Vring(VringError::Untranslatable) => {
                status::outside(self.features, self.memory.count())
            }
            RequestError::MemoryFile(MemoryFileError::MayHang(_)) => {
                Failure::new(code::MEMORY_REFUSED, with_causes(error))
            }
            _ => {
                let text = format!("request {request}: {}", with_causes(error));
                Failure::new(code::MESSAGE_REFUSED, text)
            }
        }
    }

    /// Lets others see how it is.
    fn post(&self) {
        self.board.post(SessionView {
            features: self.features,
            protocol: self.protocol.bits(),
            regions: self.memory.count(),
            memory: self.memory.bytes(),
            queues: self.vrings.iter().map(|vring| vring.view(&self.memory)).collect(),
        });
    }

    fn handle(&mut self, message: &Message, files: Vec<File>) -> Result<Answer, RequestError> {
        let unsupported = || RequestError::Unsupported(message.code);
        let request = message.request().ok_or_else(unsupported)?;
        let protocol = self.protocol;
        let needs = |feature| {
            if protocol.contains(feature) {
                Ok(())
            } else {
                Err(unsupported())
            }
        };
        match request {
            FrontendReq::GET_FEATURES => number(self.offered),
            FrontendReq::SET_FEATURES => self.set_features(message.number()?),
            FrontendReq::GET_PROTOCOL_FEATURES => number(protocol_features().bits()),
            FrontendReq::SET_PROTOCOL_FEATURES => self.set_protocol_features(message.number()?),
            // Ownership means nothing here; a frontend may repeat it after a reconnect.
            FrontendReq::SET_OWNER => Ok(Answer::Done),
            FrontendReq::RESET_OWNER => self.reset_queues(),
            FrontendReq::RESET_DEVICE => {
                needs(VhostUserProtocolFeatures::RESET_DEVICE)?;
                self.reset_queues()
            }
            FrontendReq::GET_QUEUE_NUM => number(self.vrings.len() as u64),
            FrontendReq::SET_MEM_TABLE => self.set_memory_table(message, files),
            FrontendReq::GET_MAX_MEM_SLOTS => number(MAX_MEMORY_REGIONS as u64),
            FrontendReq::ADD_MEM_REG => {
                needs(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)?;
                self.add_memory_region(message, files)
            }
            FrontendReq::REM_MEM_REG => {
                needs(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)?;
                self.remove_memory_region(message)
            }
            FrontendReq::SET_VRING_NUM => self.set_vring_size(message.body()?),
            FrontendReq::SET_VRING_ADDR => self.set_vring_addresses(message.body()?),
            FrontendReq::SET_VRING_BASE => self.set_vring_base(message.body()?),
            FrontendReq::GET_VRING_BASE => self.get_vring_base(message.body()?),
            FrontendReq::SET_VRING_KICK => self.set_vring_kick(message.number()?, files),
            FrontendReq::SET_VRING_CALL => self.set_vring_call(message.number()?, files),
            FrontendReq::SET_VRING_ERR => self.set_vring_error(message.number()?, files),
            FrontendReq::SET_VRING_ENABLE => self.set_vring_enable(message.body()?),
            FrontendReq::SET_BACKEND_REQ_FD => {
                needs(VhostUserProtocolFeatures::BACKEND_REQ)?;
                self.set_backend_channel(files)
            }
            FrontendReq::GET_INFLIGHT_FD => {
                needs(VhostUserProtocolFeatures::INFLIGHT_SHMFD)?;
                self.get_inflight(message)
            }
            FrontendReq::SET_INFLIGHT_FD => {
                needs(VhostUserProtocolFeatures::INFLIGHT_SHMFD)?;
                self.set_inflight(message, files)
            }
            // Whatever becomes of this, nothing must be done with addresses that nobody has translated.
            FrontendReq::IOTLB_MSG => Err(RequestError::Translated),
            FrontendReq::GET_CONFIG => self.get_config(message),
            FrontendReq::SET_CONFIG => Err(RequestError::ReadOnlyConfig),
            _ => Err(unsupported()),
        }
    }

    fn set_features(&mut self, features: u64) -> Result<Answer, RequestError> {
        if features & !self.offered != 0 {
            return Err(RequestError::Features(features & !self.offered));
        }
        self.pause_all();
        self.features = features;
        // Without protocol features there is no SET_VRING_ENABLE, and rings begin enabled.
        if !self.has_protocol_features() {
            for vring in &mut self.vrings {
                vring.enabled = true;
            }
        }
        self.resume_all()
    }

    fn set_protocol_features(&mut self, bits: u64) -> Result<Answer, RequestError> {
        let features = VhostUserProtocolFeatures::from_bits(bits)
            .filter(|features| protocol_features().contains(*features))
            .ok_or(RequestError::Features(bits & !protocol_features().bits()))?;
        self.protocol = features;
        Ok(Answer::Done)
    }

    fn reset_queues(&mut self) -> Result<Answer, RequestError> {
        let enabled = !self.has_protocol_features();
        for (index, vring) in self.vrings.iter_mut().enumerate() {
            vring.reset();
            vring.enabled = enabled;
            if let Some(record) = self.inflight.as_ref().and_then(|table| table.record(index)) {
                record.forget();
            }
        }
        Ok(Answer::Done)
    }

    fn set_memory_table(&mut self, message: &Message, files: Vec<File>) -> Result<Answer, RequestError> {
        let (table, rest) = message.body_and_rest::<VhostUserMemory>()?;
        let count = table.num_regions as usize;
        let size = size_of::<VhostUserMemoryRegion>();
        if rest.len() != count * size {
            return Err(MalformedBody.into());
        }
        if files.len() != count {
            return Err(RequestError::Descriptors {
                got: files.len(),
                need: count,
            });
        }
        let mut memory = MemoryTable::default();
        for (bytes, file) in rest.chunks_exact(size).zip(files) {
            self.context.tuning.memory.check(&file)?;
            let mut region = VhostUserMemoryRegion::default();
            region.as_mut_slice().copy_from_slice(bytes);
            memory.add(&region, file)?;
        }
        self.pause_all();
        self.memory = memory;
        self.resume_all()
    }

    fn add_memory_region(&mut self, message: &Message, files: Vec<File>) -> Result<Answer, RequestError> {
        let region = message.body::<VhostUserSingleMemoryRegion>()?;
        let file = one_file(files)?;
        self.context.tuning.memory.check(&file)?;
        let mut memory = self.memory.clone();
        memory.add(&region, file)?;
        self.pause_all();
        self.memory = memory;
        self.resume_all()
    }

    fn remove_memory_region(&mut self, message: &Message) -> Result<Answer, RequestError> {
        let region = message.body::<VhostUserSingleMemoryRegion>()?;
        let mut memory = self.memory.clone();
        memory.remove(&region)?;
        self.pause_all();
        self.memory = memory;
        self.resume_all()
    }

    fn set_vring_size(&mut self, state: VhostUserVringState) -> Result<Answer, RequestError> {
        let size = u16::try_from(state.num)
            .ok()
            .filter(|size| size.is_power_of_two() && *size <= MAX_QUEUE_SIZE);
        let size = size.ok_or(RequestError::Value(state.num.into()))?;
        self.change(state.index.into(), |vring| vring.size = size)
    }

    fn set_vring_addresses(&mut self, addresses: VhostUserVringAddr) -> Result<Answer, RequestError> {
        // The only flag asks for a log of dirtied pages, which is not offered.
        if addresses.flags != 0 {
            return Err(RequestError::Value(addresses.flags.into()));
        }
        let user = UserAddresses {
            descriptors: addresses.descriptor,
            available: addresses.available,
            used: addresses.used,
        };
        if !user.are_in(&self.memory) {
            return Err(VringError::Untranslatable.into());
        }
        self.was_set_up = true;
        self.change(addresses.index.into(), |vring| vring.addresses = Some(user))
    }

    fn set_vring_base(&mut self, state: VhostUserVringState) -> Result<Answer, RequestError> {
        let base = u16::try_from(state.num).map_err(|_| RequestError::Value(state.num.into()))?;
        self.change(state.index.into(), |vring| vring.base = base)
    }

    /// Drains the queue before it answers: afterwards the guest's memory is not touched for it.
    fn get_vring_base(&mut self, state: VhostUserVringState) -> Result<Answer, RequestError> {
        let base = self.vring(state.index.into())?.stop();
        let reply = VhostUserVringState::new(state.index, base.into());
        Ok(Answer::Reply(reply.as_slice().to_vec()))
    }

    fn set_vring_kick(&mut self, body: u64, files: Vec<File>) -> Result<Answer, RequestError> {
        let kick = self.vring_file(body, files)?;
        self.change(body & VRING_INDEX_MASK, |vring| vring.set_kick(kick))
    }

    fn set_vring_call(&mut self, body: u64, files: Vec<File>) -> Result<Answer, RequestError> {
        let call = self.vring_file(body, files)?;
        self.vring(body & VRING_INDEX_MASK)?
            .set_call(call)
            .map_err(RequestError::Descriptor)?;
        Ok(Answer::Done)
    }

    fn set_vring_error(&mut self, body: u64, files: Vec<File>) -> Result<Answer, RequestError> {
        let error = self.vring_file(body, files)?;
        self.change(body & VRING_INDEX_MASK, |vring| vring.set_error(error))
    }

    fn set_vring_enable(&mut self, state: VhostUserVringState) -> Result<Answer, RequestError> {
        if !self.has_protocol_features() {
            return Err(RequestError::Unsupported(FrontendReq::SET_VRING_ENABLE.into()));
        }
        let enabled = match state.num {
            0 => false,
            1 => true,
            other => return Err(RequestError::Value(other.into())),
        };
        self.change(state.index.into(), |vring| vring.enabled = enabled)
    }

    fn set_backend_channel(&self, files: Vec<File>) -> Result<Answer, RequestError> {
        let socket = one_file(files)?;
        // The only message that we have for it belongs to this feature.
        if self.protocol.contains(VhostUserProtocolFeatures::CONFIG) {
            self.channel.open(socket)?;
        }
        Ok(Answer::Done)
    }

    fn get_inflight(&self, message: &Message) -> Result<Answer, RequestError> {
        let (layout, file) = InflightLayout::parse(&message.body)?.allocate(self.queues)?;
        Ok(Answer::ReplyWith(layout.body(message.body.len()), file))
    }

    fn set_inflight(&mut self, message: &Message, files: Vec<File>) -> Result<Answer, RequestError> {
        let layout = InflightLayout::parse(&message.body)?;
        let file = one_file(files)?;
        self.context.tuning.memory.check(&file)?;
        let table = layout.map(self.queues, file)?;
        self.pause_all();
        self.inflight = Some(Arc::new(table));
        self.resume_all()
    }

    fn get_config(&mut self, message: &Message) -> Result<Answer, RequestError> {
        let (mut config, payload) = message.body_and_rest::<VhostUserConfig>()?;
        if payload.len() != config.size as usize {
            return Err(MalformedBody.into());
        }
        // An error is told by an answer without payload.
        let space = ConfigSpace::of(&self.context.disk, self.queues, self.context.is_read_only());
        let bytes = space.read(config.offset, config.size).unwrap_or(&[]);
        config.size = bytes.len() as u32;
        // A frontend that comes back may have read it from an earlier version, and its driver, too. QEMU reads it when it is
        // new, and then only to see whether the capacity has changed.
        if !self.was_set_up {
            self.segments = MAX_DISCARD_SEGMENTS;
        }
        Ok(Answer::Reply([config.as_slice(), bytes].concat()))
    }

    /// A kick, call or error descriptor, or none.
    fn vring_file(&self, body: u64, files: Vec<File>) -> Result<Option<File>, RequestError> {
        if body & !(VRING_INDEX_MASK | VRING_NO_DESCRIPTOR) != 0 {
            return Err(RequestError::Value(body));
        }
        if body & VRING_NO_DESCRIPTOR != 0 {
            return match files.len() {
                0 => Ok(None),
                got => Err(RequestError::Descriptors { got, need: 0 }),
            };
        }
        let file = one_file(files)?;
        // Only an eventfd can be written to without waiting, and is sure not to keep a worker awake.
        match self.context.crew.is_eventfd(&file) {
            Ok(true) => Ok(Some(file)),
            Ok(false) => Err(RequestError::NoEventfd),
            Err(error) => Err(RequestError::Descriptor(error)),
        }
    }

    fn vring(&mut self, index: u64) -> Result<&mut Vring, RequestError> {
        let vring = usize::try_from(index)
            .ok()
            .and_then(|index| self.vrings.get_mut(index));
        vring.ok_or(RequestError::Queue(index))
    }

    /// Changes a queue at rest, and lets it go on if it can.
    fn change(&mut self, index: u64, change: impl FnOnce(&mut Vring)) -> Result<Answer, RequestError> {
        let vring = self.vring(index)?;
        vring.pause();
        change(vring);
        self.resume(index as usize)?;
        Ok(Answer::Done)
    }

    fn pause_all(&mut self) {
        for vring in &mut self.vrings {
            vring.pause();
        }
    }

    /// Every queue is tried, whatever becomes of the others. One whose rings are in no region any more rests: the
    /// region may be about to come back, with another size.
    fn resume_all(&mut self) -> Result<Answer, RequestError> {
        let mut outcome = Ok(Answer::Done);
        for index in 0..self.vrings.len() {
            match self.resume(index) {
                Ok(()) | Err(VringError::Untranslatable) => {}
                Err(error) => outcome = outcome.and(Err(error.into())),
            }
        }
        outcome
    }

    fn has_protocol_features(&self) -> bool {
        self.features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0
    }

    fn resume(&mut self, index: usize) -> Result<(), VringError> {
        let acknowledged = |bit: u32| self.features >> bit & 1 == 1;
        let driver = DriverFeatures {
            event_idx: acknowledged(VIRTIO_RING_F_EVENT_IDX),
            flush: acknowledged(VIRTIO_BLK_F_FLUSH),
            discard: acknowledged(VIRTIO_BLK_F_DISCARD),
            write_zeroes: acknowledged(VIRTIO_BLK_F_WRITE_ZEROES),
            segments: self.segments,
        };
        let inflight = self.inflight.as_ref();
        self.vrings[index].resume(index, &self.context, &self.memory, inflight, driver)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.channel.close();
        self.board.clear();
    }
}

/// Waits until there is something to receive, or the interruption is due: then true.
fn wait_for_message(stream: &UnixStream, interruption: &Interruption<'_>) -> bool {
    loop {
        if (interruption.is_due)() {
            return true;
        }
        let mut fds = [
            PollFd::new(stream, PollFlags::IN),
            PollFd::from_borrowed_fd(interruption.wake, PollFlags::IN),
        ];
        // Whatever is wrong with the connection, receiving tells.
        let failed = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None)).is_err();
        if failed || !fds[0].revents().is_empty() {
            return false;
        }
    }
}

fn number(value: u64) -> Result<Answer, RequestError> {
    Ok(Answer::Reply(value.to_ne_bytes().to_vec()))
}

fn one_file(mut files: Vec<File>) -> Result<File, RequestError> {
    match files.len() {
        1 => Ok(files.remove(0)),
        got => Err(RequestError::Descriptors { got, need: 1 }),
    }
}
