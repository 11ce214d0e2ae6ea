//! The only reader of guest descriptors: a chain becomes a [`Request`] that cannot be wrong, or an error.
//!
//! Layout of a request (virtio 1.2, section 5.2.6): a readable header of 16 bytes {type, reserved, sector}, the
//! data, and a writable status byte at the end. Any of it may be split between descriptors at any byte (section
//! 2.7.4.1 forbids assuming otherwise).

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_queue::DescriptorChain;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use super::{Cursor, GuestBuffers, GuestMemory};
use crate::limits::{MAX_CHAIN_DESCRIPTORS, MAX_REQUEST_BYTES};
use crate::units::{Capacity, SECTOR_BYTES, SectorRange};

const HEADER_BYTES: usize = 16;

/// What the guest is told in the status byte (virtio 1.2, section 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// VIRTIO_BLK_S_OK
    Ok = 0,
    /// VIRTIO_BLK_S_IOERR
    IoError = 1,
    /// VIRTIO_BLK_S_UNSUPP
    Unsupported = 2,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read the range into the data buffers, which have exactly its length.
    Read(SectorRange),
    /// Write the data buffers, which have exactly the range's length.
    Write(SectorRange),
    /// Make completed writes durable.
    Flush,
    /// Write the disk's id into the data buffers, which may have any length.
    GetId,
    /// Nothing: the request is answered with this status at once.
    Answer(Status),
}

/// The chain cannot carry an answer: it is returned with a used length of 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It ends before its last descriptor, is a loop, or is longer than a queue.
    #[error("the descriptor chain is broken")]
    Broken,
    /// A readable descriptor comes after a writable one (virtio 1.2, section 2.7.4.2).
    #[error("a readable descriptor follows a writable one")]
    Order,
    /// There is no writable byte in guest memory for the status.
    #[error("there is no room for the status byte")]
    NoStatus,
}

/// A parsed request, kept until it is completed. One object is reused for request after request, so that parsing
/// does not allocate.
#[derive(Debug)]
pub struct Request {
    /// What is to be done.
    pub operation: Operation,
    /// The guest's data buffers.
    pub data: GuestBuffers,
    status_address: GuestAddress,
}

/// Room for a chain's descriptors while it is parsed; one for all requests of a queue.
#[derive(Debug, Default)]
pub struct Scratch {
    readable: GuestBuffers,
    writable: GuestBuffers,
}

impl Default for Request {
    fn default() -> Self {
        Request {
            operation: Operation::Answer(Status::Unsupported),
            data: GuestBuffers::default(),
            status_address: GuestAddress(0),
        }
    }
}

impl Request {
    /// Reads the chain's descriptors once, and the header once, and makes of them this request.
    ///
    /// A request that is wrong but can be answered becomes an [`Operation::Answer`].
    ///
    /// # Errors
    /// [`ChainError`], if it cannot be answered.
    pub fn parse(
        &mut self,
        scratch: &mut Scratch,
        chain: DescriptorChain<&GuestMemory>,
        memory: &GuestMemory,
        capacity: Capacity,
        read_only: bool,
    ) -> Result<(), ChainError> {
        scratch.collect(chain)?;
        self.status_address = scratch.writable.pop_last_byte().ok_or(ChainError::NoStatus)?;
        // Probing by a write, for a status that the guest reads too early says "error".
        memory
            .write_obj(Status::IoError as u8, self.status_address)
            .map_err(|_| ChainError::NoStatus)?;
        self.operation = match self.interpret(scratch, memory, capacity, read_only) {
            Ok(operation) => operation,
            Err(status) => Operation::Answer(status),
        };
        Ok(())
    }

    fn interpret(
        &mut self,
        scratch: &mut Scratch,
        memory: &GuestMemory,
        capacity: Capacity,
        read_only: bool,
    ) -> Result<Operation, Status> {
        let mut header = [0; HEADER_BYTES];
        scratch
            .readable
            .read(memory, &mut Cursor::default(), &mut header)
            .map_err(|_| Status::IoError)?;
        scratch.readable.drop_front(HEADER_BYTES);
        let (kind, rest) = header.split_at(4);
        let kind = u32::from_le_bytes(kind.try_into().expect("4 bytes"));
        let sector = u64::from_le_bytes(rest[4..].try_into().expect("8 bytes"));
        let operation = match kind {
            VIRTIO_BLK_T_IN => {
                let range = self.data_range(Direction::ToGuest, scratch, memory, capacity, sector)?;
                Operation::Read(range)
            }
            VIRTIO_BLK_T_OUT if read_only => return Err(Status::IoError),
            VIRTIO_BLK_T_OUT => {
                let range = self.data_range(Direction::FromGuest, scratch, memory, capacity, sector)?;
                Operation::Write(range)
            }
            VIRTIO_BLK_T_FLUSH => Operation::Flush,
            VIRTIO_BLK_T_GET_ID => {
                self.use_data(Direction::ToGuest, scratch, memory)?;
                Operation::GetId
            }
            _ => return Err(Status::Unsupported),
        };
        Ok(operation)
    }

    /// The sectors that the data buffers stand for.
    fn data_range(
        &mut self,
        direction: Direction,
        scratch: &mut Scratch,
        memory: &GuestMemory,
        capacity: Capacity,
        sector: u64,
    ) -> Result<SectorRange, Status> {
        self.use_data(direction, scratch, memory)?;
        let len = self.data.len();
        if !len.is_multiple_of(SECTOR_BYTES as u64) || len > MAX_REQUEST_BYTES {
            return Err(Status::IoError);
        }
        capacity
            .range(sector, len / SECTOR_BYTES as u64)
            .map_err(|_| Status::IoError)
    }

    /// Takes the buffers of one direction as data; there must be none of the other.
    fn use_data(
        &mut self,
        direction: Direction,
        scratch: &mut Scratch,
        memory: &GuestMemory,
    ) -> Result<(), Status> {
        let (wanted, unwanted) = match direction {
            Direction::ToGuest => (&mut scratch.writable, &scratch.readable),
            Direction::FromGuest => (&mut scratch.readable, &scratch.writable),
        };
        if !unwanted.is_empty() || !wanted.is_mapped(memory) {
            return Err(Status::IoError);
        }
        std::mem::swap(&mut self.data, wanted);
        Ok(())
    }

    /// Writes the status byte. Returns the used length: all bytes written, of which `data` are data.
    ///
    /// If guest memory has gone meanwhile there is nobody left to read the status, and nothing to be done.
    pub fn write_status(&self, memory: &GuestMemory, status: Status, data: u32) -> u32 {
        match memory.write_obj(status as u8, self.status_address) {
            Ok(()) => data.saturating_add(1),
            Err(_) => 0,
        }
    }
}

impl Scratch {
    /// Copies addresses and lengths of all descriptors.
    fn collect(&mut self, chain: DescriptorChain<&GuestMemory>) -> Result<(), ChainError> {
        self.readable.clear();
        self.writable.clear();
        let mut last: Option<Descriptor> = None;
        for (index, descriptor) in chain.enumerate() {
            if index == MAX_CHAIN_DESCRIPTORS {
                return Err(ChainError::Broken);
            }
            if descriptor.is_write_only() {
                self.writable.push(descriptor.addr(), descriptor.len());
            } else if self.writable.is_empty() {
                self.readable.push(descriptor.addr(), descriptor.len());
            } else {
                return Err(ChainError::Order);
            }
            last = Some(descriptor);
        }
        // The iterator ends silently at an error; then the last descriptor it gave has a successor.
        match last {
            Some(last) if !last.has_next() => Ok(()),
            _ => Err(ChainError::Broken),
        }
    }
}

enum Direction {
    ToGuest,
    FromGuest,
}
