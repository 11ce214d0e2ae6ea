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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
    use virtio_queue::{Queue, QueueOwnedT, QueueT};

    use super::*;
    use crate::units::{ByteLen, Sector};

    const WRITE: u16 = VRING_DESC_F_WRITE as u16;
    const NEXT: u16 = VRING_DESC_F_NEXT as u16;
    const MEMORY_BYTES: usize = 1 << 20;
    const HEADER: u64 = 0x4000;
    const DATA: u64 = 0x8000;
    const STATUS: u64 = 0x5000;
    const SECTORS: u64 = 1000;

    /// A request as a driver lays it out, to be spoilt.
    #[derive(Clone, Debug)]
    struct Layout {
        kind: u32,
        sector: u64,
        descriptors: Vec<(u64, u32, u16)>,
    }

    impl Layout {
        fn valid(kind: u32, sector: u64, sectors: u32) -> Self {
            let flags = if kind == VIRTIO_BLK_T_IN { WRITE } else { 0 };
            let descriptors = vec![(HEADER, 16, 0), (DATA, sectors * 512, flags), (STATUS, 1, WRITE)];
            Layout {
                kind,
                sector,
                descriptors,
            }
        }

        fn parse(&self) -> Result<Operation, ChainError> {
            let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap();
            memory.write_obj(self.kind, GuestAddress(HEADER)).unwrap();
            memory.write_obj(self.sector, GuestAddress(HEADER + 8)).unwrap();
            for (slot, (address, len, flags)) in self.descriptors.iter().enumerate() {
                let last = slot + 1 == self.descriptors.len();
                let flags = if last { *flags } else { *flags | NEXT };
                // A last one that is spoilt to have a successor has it beyond the table.
                let next = if last { 128 } else { slot as u16 + 1 };
                let descriptor = Descriptor::new(*address, *len, flags, next);
                memory
                    .write_obj(descriptor, GuestAddress(slot as u64 * 16))
                    .unwrap();
            }
            // The available ring at 0x1000 offers chain 0; the used ring is at 0x2000.
            memory.write_obj(1u16, GuestAddress(0x1002)).unwrap();
            let mut queue = Queue::new(128).unwrap();
            queue.try_set_desc_table_address(GuestAddress(0)).unwrap();
            queue.try_set_avail_ring_address(GuestAddress(0x1000)).unwrap();
            queue.try_set_used_ring_address(GuestAddress(0x2000)).unwrap();
            queue.set_ready(true);
            let chain = queue.iter(&memory).unwrap().next().unwrap();
            let capacity = Capacity::new(ByteLen(SECTORS * 512)).unwrap();
            let mut request = Request::default();
            request.parse(&mut Scratch::default(), chain, &memory, capacity, false)?;
            Ok(request.operation)
        }
    }

    fn error() -> Result<Operation, ChainError> {
        Ok(Operation::Answer(Status::IoError))
    }

    proptest! {
        #[test]
        fn valid_requests_say_what_was_asked(write in any::<bool>(), sector in 0..SECTORS, sectors in 1u32..100) {
            let kind = if write { VIRTIO_BLK_T_OUT } else { VIRTIO_BLK_T_IN };
            let parsed = Layout::valid(kind, sector, sectors).parse();
            if sector + u64::from(sectors) > SECTORS {
                prop_assert_eq!(parsed, error());
            } else {
                let range = match parsed.unwrap() {
                    Operation::Write(range) if write => range,
                    Operation::Read(range) if !write => range,
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                };
                prop_assert_eq!((range.start(), range.count()), (Sector(sector), u64::from(sectors)));
            }
        }

        /// Each way to spoil a valid request has just one answer.
        #[test]
        fn spoilt_requests_get_their_error(
            write in any::<bool>(),
            sector in 0u64..SECTORS - 100,
            sectors in 1u32..100,
            odd in 1u32..512,
            beyond in 0u64..1 << 40,
        ) {
            let kind = if write { VIRTIO_BLK_T_OUT } else { VIRTIO_BLK_T_IN };
            let valid = Layout::valid(kind, sector, sectors);
            let spoilt = |spoil: &dyn Fn(&mut Layout)| {
                let mut layout = valid.clone();
                spoil(&mut layout);
                layout.parse()
            };
            let outside = MEMORY_BYTES as u64 + beyond;
            // Answered with an error.
            prop_assert_eq!(spoilt(&|layout| layout.descriptors[1].1 += odd), error());
            prop_assert_eq!(spoilt(&|layout| layout.descriptors[1].0 = outside), error());
            prop_assert_eq!(spoilt(&|layout| layout.descriptors[0].0 = outside), error());
            prop_assert_eq!(spoilt(&|layout| layout.sector = SECTORS + beyond), error());
            prop_assert_eq!(spoilt(&|layout| layout.sector = u64::MAX - beyond), error());
            prop_assert_eq!(
                spoilt(&|layout| layout.kind = if write { VIRTIO_BLK_T_IN } else { VIRTIO_BLK_T_OUT }),
                error()
            );
            // What is missing of the header is taken from a write's data, which is then no whole sectors.
            prop_assert_eq!(spoilt(&|layout| layout.descriptors[0].1 = odd % 16), error());
            prop_assert_eq!(spoilt(&|layout| layout.kind = 100 + odd), Ok(Operation::Answer(Status::Unsupported)));
            // Not to be answered.
            prop_assert_eq!(spoilt(&|layout| layout.descriptors[2].0 = outside), Err(ChainError::NoStatus));
            prop_assert_eq!(spoilt(&|layout| layout.descriptors[2].2 = NEXT | WRITE), Err(ChainError::Broken));
            prop_assert_eq!(spoilt(&|layout| layout.descriptors.swap(0, 2)), Err(ChainError::Order));
            prop_assert_eq!(
                spoilt(&|layout| {
                    layout.descriptors.truncate(2);
                    layout.descriptors[1].2 = 0;
                }),
                Err(ChainError::NoStatus)
            );
        }
    }
}
