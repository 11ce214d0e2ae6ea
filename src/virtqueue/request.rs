//! The only reader of guest descriptors: a chain becomes a [`Request`] that cannot be wrong, or an error.
//!
//! Layout of a request (virtio 1.2, section 5.2.6): a readable header of 16 bytes {type, reserved, sector}, the
//! data, and a writable status byte at the end. Any of it may be split between descriptors at any byte (section
//! 2.7.4.1 forbids assuming otherwise). The data of DISCARD and WRITE_ZEROES is segments of 16 bytes, which are read here
//! too.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, virtio_blk_discard_write_zeroes,
};
use vm_memory::{GuestAddress, GuestMemory as _, Permissions};

use super::chain::{BrokenChain, Chain};
use super::guest_buffers::{Cursor, GuestBuffers};
use super::memory::{self, GuestMemory};
use crate::limits::{MAX_CHAIN_DESCRIPTORS, MAX_CHAIN_LENGTH, MAX_DISCARD_SECTORS, MAX_REQUEST_BYTES};
use crate::units::{Capacity, SECTOR_BYTES, SectorRange};

const HEADER_BYTES: usize = 16;
const SEGMENT_BYTES: usize = size_of::<virtio_blk_discard_write_zeroes>();

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
pub enum RequestType {
    /// Read the range into the data buffers, which have exactly its length.
    Read(SectorRange),
    /// Write the data buffers, which have exactly the range's length.
    Write(SectorRange),
    /// Make completed writes durable.
    Flush,
    /// Write the disk's id into the data buffers, which may have any length.
    GetId,
    /// Forget the blocks that lie wholly within the request's segments; they may read as zeros.
    Discard,
    /// Make the request's segments read as zeros.
    WriteZeroes,
    /// Nothing: the request is answered with this status at once.
    Answer(Status),
}

/// What a request is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Its size at this moment.
    pub capacity: Capacity,
    /// Writes are refused.
    pub read_only: bool,
    /// VIRTIO_BLK_F_DISCARD is negotiated.
    pub discard: bool,
    /// VIRTIO_BLK_F_WRITE_ZEROES is negotiated.
    pub write_zeroes: bool,
    /// Most segments of one of these two.
    pub segments: u32,
}

/// The chain cannot carry an answer: it is returned with a used length of 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The chain ends before its last descriptor, is a loop, or is longer than any queue.
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
    pub operation: RequestType,
    /// The guest's data buffers.
    pub data: GuestBuffers,
    /// Of a discard or write-zeroes: what it is about, none of it empty. Otherwise there are none.
    pub segments: Vec<SectorRange>,
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
            operation: RequestType::Answer(Status::Unsupported),
            data: GuestBuffers::default(),
            segments: Vec::new(),
            status_address: GuestAddress(0),
        }
    }
}

impl Request {
    /// Reads the chain's descriptors once, and the header once, and makes of them this request.
    ///
    /// A request that is wrong but can be answered becomes an [`RequestType::Answer`].
    ///
    /// # Errors
    /// [`ChainError`], if it cannot be answered.
    pub fn parse(
        &mut self,
        scratch: &mut Scratch,
        chain: Chain<'_>,
        memory: &GuestMemory,
        device: &Device,
    ) -> Result<(), ChainError> {
        let length = scratch.collect(chain)?;
        self.status_address = scratch.writable.pop_last_byte().ok_or(ChainError::NoStatus)?;
        // Not by a write: a driver may wait for the byte to change, and takes the first value for the answer.
        if !memory.check_range(self.status_address, 1, Permissions::Write) {
            return Err(ChainError::NoStatus);
        }
        self.segments.clear();
        let operation = match length {
            Length::Whole => self.interpret(scratch, memory, device),
            Length::Excessive => Err(Status::IoError),
        };
        self.operation = operation.unwrap_or_else(RequestType::Answer);
        Ok(())
    }

    fn interpret(
        &mut self,
        scratch: &mut Scratch,
        memory: &GuestMemory,
        device: &Device,
    ) -> Result<RequestType, Status> {
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
                let range = self.data_range(Direction::ToGuest, scratch, memory, device.capacity, sector)?;
                RequestType::Read(range)
            }
            VIRTIO_BLK_T_OUT if device.read_only => return Err(Status::IoError),
            VIRTIO_BLK_T_OUT => {
                let range =
                    self.data_range(Direction::FromGuest, scratch, memory, device.capacity, sector)?;
                RequestType::Write(range)
            }
            VIRTIO_BLK_T_FLUSH => RequestType::Flush,
            VIRTIO_BLK_T_GET_ID => {
                self.use_data(Direction::ToGuest, scratch, memory)?;
                RequestType::GetId
            }
            VIRTIO_BLK_T_DISCARD if device.discard => {
                self.read_segments(scratch, memory, device, 0)?;
                RequestType::Discard
            }
            VIRTIO_BLK_T_WRITE_ZEROES if device.write_zeroes => {
                let unmap = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
                self.read_segments(scratch, memory, device, unmap)?;
                RequestType::WriteZeroes
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

    /// Reads the segments of a discard or write-zeroes, of which all must be good: then nothing has been done when one is
    /// refused. Empty ones are left out.
    fn read_segments(
        &mut self,
        scratch: &mut Scratch,
        memory: &GuestMemory,
        device: &Device,
        flags_known: u32,
    ) -> Result<(), Status> {
        self.use_data(Direction::FromGuest, scratch, memory)?;
        let len = self.data.len();
        let count = len / SEGMENT_BYTES as u64;
        if !len.is_multiple_of(SEGMENT_BYTES as u64) || count == 0 {
            return Err(Status::IoError);
        }
        // More than it was told of is what the device does not have.
        if count > device.segments.into() {
            return Err(Status::Unsupported);
        }
        let mut cursor = Cursor::default();
        let mut refused = None;
        for _ in 0..count {
            let mut bytes = [0; SEGMENT_BYTES];
            self.data
                .read(memory, &mut cursor, &mut bytes)
                .map_err(|_| Status::IoError)?;
            match segment(&bytes, device.capacity, flags_known) {
                Ok(range) if range.count() > 0 => self.segments.push(range),
                Ok(_) => {}
                // An unknown flag in any segment decides (section 5.2.6.2).
                Err(Status::Unsupported) => return Err(Status::Unsupported),
                Err(status) => refused = Some(status),
            }
        }
        refused.map_or(Ok(()), Err)
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
        match memory::front(memory, self.status_address, 1) {
            Some(byte) => {
                byte.copy_from(&[status as u8]);
                data.saturating_add(1)
            }
            None => 0,
        }
    }
}

impl Scratch {
    /// Copies addresses and lengths of all descriptors; of a chain that is too long, of the last writable one.
    fn collect(&mut self, chain: Chain<'_>) -> Result<Length, ChainError> {
        self.readable.clear();
        self.writable.clear();
        let mut length = Length::Whole;
        for (index, descriptor) in chain.enumerate() {
            let descriptor = descriptor?;
            if index == MAX_CHAIN_LENGTH {
                return Err(ChainError::Broken);
            }
            if index == MAX_CHAIN_DESCRIPTORS {
                length = Length::Excessive;
            }
            if descriptor.is_write_only() {
                if length == Length::Excessive && descriptor.len() > 0 {
                    self.writable.clear();
                }
                self.writable.push(descriptor.addr(), descriptor.len());
            } else if !self.writable.is_empty() {
                return Err(ChainError::Order);
            } else if length == Length::Whole {
                self.readable.push(descriptor.addr(), descriptor.len());
            }
        }
        Ok(length)
    }
}

/// Whether all descriptors of a chain could be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Whole,
    Excessive,
}

impl From<BrokenChain> for ChainError {
    fn from(_: BrokenChain) -> Self {
        ChainError::Broken
    }
}

/// One `struct virtio_blk_discard_write_zeroes`: {le64 sector, le32 number of sectors, le32 flags}.
fn segment(bytes: &[u8; SEGMENT_BYTES], capacity: Capacity, flags_known: u32) -> Result<SectorRange, Status> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let sector = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    let (count, flags) = (word(8), word(12));
    if flags & !flags_known != 0 {
        return Err(Status::Unsupported);
    }
    if count > MAX_DISCARD_SECTORS {
        return Err(Status::IoError);
    }
    capacity.range(sector, count.into()).map_err(|_| Status::IoError)
}

enum Direction {
    ToGuest,
    FromGuest,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
    use virtio_queue::desc::split::Descriptor;
    use vm_memory::Bytes as _;

    use super::*;
    use crate::units::{ByteLen, Sector};

    const WRITE: u16 = VRING_DESC_F_WRITE as u16;
    const NEXT: u16 = VRING_DESC_F_NEXT as u16;
    const MEMORY_BYTES: usize = 1 << 20;
    const HEADER: u64 = 0x4000;
    const DATA: u64 = 0x8000;
    const STATUS: u64 = 0x5000;
    const UNANSWERED: u8 = 0xff;
    const SECTORS: u64 = 1000;

    /// A request as a driver lays it out, to be spoilt.
    #[derive(Clone, Debug)]
    struct Layout {
        kind: u32,
        sector: u64,
        descriptors: Vec<(u64, u32, u16)>,
        /// What lies at `DATA`: sector, number of sectors, flags.
        segments: Vec<(u64, u32, u32)>,
        /// DISCARD and WRITE_ZEROES are negotiated.
        negotiated: bool,
        /// Most of them in a request.
        most_segments: u32,
    }

    impl Layout {
        fn valid(kind: u32, sector: u64, sectors: u32) -> Self {
            let flags = if kind == VIRTIO_BLK_T_IN { WRITE } else { 0 };
            let descriptors = vec![(HEADER, 16, 0), (DATA, sectors * 512, flags), (STATUS, 1, WRITE)];
            Layout {
                kind,
                sector,
                descriptors,
                segments: Vec::new(),
                negotiated: true,
                most_segments: 64,
            }
        }

        fn of_segments(kind: u32, segments: Vec<(u64, u32, u32)>) -> Self {
            let mut layout = Self::valid(kind, 0, 0);
            layout.descriptors[1].1 = segments.len() as u32 * 16;
            layout.segments = segments;
            layout
        }

        fn parse(&self) -> Result<RequestType, ChainError> {
            Ok(self.parse_whole()?.operation)
        }

        fn parse_whole(&self) -> Result<Request, ChainError> {
            let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap();
            memory.write_obj(self.kind, GuestAddress(HEADER)).unwrap();
            memory.write_obj(self.sector, GuestAddress(HEADER + 8)).unwrap();
            for (index, (sector, count, flags)) in self.segments.iter().enumerate() {
                let at = DATA + index as u64 * 16;
                memory.write_obj(*sector, GuestAddress(at)).unwrap();
                memory.write_obj(*count, GuestAddress(at + 8)).unwrap();
                memory.write_obj(*flags, GuestAddress(at + 12)).unwrap();
            }
            for (slot, (address, len, flags)) in self.descriptors.iter().enumerate() {
                let last = slot + 1 == self.descriptors.len();
                let flags = if last { *flags } else { *flags | NEXT };
                // A last one that is spoilt to have a successor has it beyond the table.
                let next = if last { 1024 } else { slot as u16 + 1 };
                let descriptor = Descriptor::new(*address, *len, flags, next);
                memory
                    .write_obj(descriptor, GuestAddress(slot as u64 * 16))
                    .unwrap();
            }
            memory.write_obj(UNANSWERED, GuestAddress(STATUS)).unwrap();
            let chain = Chain::new(&memory, GuestAddress(0), 1024, 0);
            let mut request = Request::default();
            let device = Device {
                capacity: Capacity::new(ByteLen(SECTORS * 512)).unwrap(),
                read_only: false,
                discard: self.negotiated,
                write_zeroes: self.negotiated,
                segments: self.most_segments,
            };
            request.parse(&mut Scratch::default(), chain, &memory, &device)?;
            let status: u8 = memory.read_obj(GuestAddress(STATUS)).unwrap();
            assert_eq!(status, UNANSWERED, "nothing is answered before it is done");
            Ok(request)
        }
    }

    fn error() -> Result<RequestType, ChainError> {
        Ok(RequestType::Answer(Status::IoError))
    }

    #[test]
    fn segments_have_limits_of_number_and_length() {
        let parsed = |most_segments, count| {
            let layout = Layout {
                most_segments,
                ..Layout::of_segments(VIRTIO_BLK_T_DISCARD, vec![(0, 8, 0); count])
            };
            layout.parse()
        };
        for most in [1, 64] {
            assert_eq!(parsed(most, most as usize), Ok(RequestType::Discard));
            let unsupported = RequestType::Answer(Status::Unsupported);
            assert_eq!(parsed(most, most as usize + 1), Ok(unsupported));
            assert_eq!(parsed(most, 0), error());
        }
        let large = Capacity::new(ByteLen(4 << 30)).unwrap();
        let of_length = |count: u32| {
            let bytes = [&[0; 8][..], &count.to_le_bytes(), &[0; 4]].concat();
            segment(&bytes.try_into().unwrap(), large, 0)
        };
        assert_eq!(of_length(1 << 21).unwrap().count(), 1 << 21);
        assert_eq!(of_length((1 << 21) + 1), Err(Status::IoError));
    }

    /// A chain of `count` descriptors, header and status as they should be.
    fn of_length(count: usize) -> Layout {
        let mut layout = Layout::valid(VIRTIO_BLK_T_OUT, 0, 1);
        layout.descriptors.resize(count - 1, (DATA, 512, 0));
        layout.descriptors[2..].fill((DATA, 512, 0));
        layout.descriptors.push((STATUS, 1, WRITE));
        layout
    }

    #[test]
    fn a_chain_that_is_too_long_gets_its_status_where_it_has_room_for_one() {
        let whole = of_length(256).parse().unwrap();
        assert!(matches!(whole, RequestType::Write(range) if range.count() == 254));
        for count in [257, 258, 1024] {
            let layout = of_length(count);
            let request = layout.parse_whole().unwrap();
            assert_eq!(request.operation, RequestType::Answer(Status::IoError));
            assert_eq!(request.status_address, GuestAddress(STATUS));
            // The status is the last writable byte, whatever comes before and after it.
            let mut read = layout.clone();
            for (_, _, flags) in &mut read.descriptors[1..] {
                *flags = WRITE;
            }
            read.descriptors[count - 2] = (STATUS - 1, 2, WRITE);
            read.descriptors[count - 1] = (0, 0, WRITE);
            assert_eq!(read.parse_whole().unwrap().status_address, GuestAddress(STATUS));
            // And as ever.
            let spoilt = |spoil: &dyn Fn(&mut Layout)| {
                let mut layout = layout.clone();
                spoil(&mut layout);
                layout.parse()
            };
            let no_status = Err(ChainError::NoStatus);
            assert_eq!(spoilt(&|layout| layout.descriptors[count - 1].2 = 0), no_status);
            assert_eq!(
                spoilt(&|layout| layout.descriptors[count - 1].0 = 1 << 40),
                no_status
            );
            assert_eq!(
                spoilt(&|layout| layout.descriptors[3].2 = WRITE),
                Err(ChainError::Order)
            );
            assert_eq!(
                spoilt(&|layout| layout.descriptors[count - 1].2 = WRITE | NEXT),
                Err(ChainError::Broken)
            );
        }
    }

    #[test]
    fn what_was_not_negotiated_is_not_supported() {
        for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
            let mut layout = Layout::of_segments(kind, vec![(0, 8, 0)]);
            layout.negotiated = false;
            assert_eq!(layout.parse(), Ok(RequestType::Answer(Status::Unsupported)));
        }
    }

    proptest! {
        #[test]
        fn segments_are_taken_as_they_are(
            zeroes in any::<bool>(),
            unmap in any::<bool>(),
            segments in proptest::collection::vec((0..SECTORS, 0u32..100), 1..64),
        ) {
            let (kind, flags) = if zeroes { (VIRTIO_BLK_T_WRITE_ZEROES, u32::from(unmap)) } else { (VIRTIO_BLK_T_DISCARD, 0) };
            let segments: Vec<(u64, u32, u32)> = segments
                .into_iter()
                .map(|(sector, count)| (sector, count.min((SECTORS - sector) as u32), flags))
                .collect();
            let request = Layout::of_segments(kind, segments.clone()).parse_whole().unwrap();
            let expected = if zeroes { RequestType::WriteZeroes } else { RequestType::Discard };
            prop_assert_eq!(request.operation, expected);
            let taken: Vec<(u64, u32, u32)> = request
                .segments
                .iter()
                .map(|range| (range.start().0, range.count() as u32, flags))
                .collect();
            let not_empty: Vec<(u64, u32, u32)> = segments.into_iter().filter(|(_, count, _)| *count > 0).collect();
            prop_assert_eq!(taken, not_empty);
        }

        #[test]
        fn one_spoilt_segment_refuses_the_request(
            zeroes in any::<bool>(),
            count in 1usize..64,
            which in any::<prop::sample::Index>(),
            beyond in 1u64..1 << 40,
            bit in 0u32..32,
            odd in 1u32..16,
        ) {
            let kind = if zeroes { VIRTIO_BLK_T_WRITE_ZEROES } else { VIRTIO_BLK_T_DISCARD };
            let which = which.index(count);
            let spoilt = |spoil: &dyn Fn(&mut (u64, u32, u32))| {
                let mut segments = vec![(10, 20, 0); count];
                spoil(&mut segments[which]);
                Layout::of_segments(kind, segments).parse()
            };
            let unsupported = Ok(RequestType::Answer(Status::Unsupported));
            prop_assert_eq!(spoilt(&|segment| segment.0 = SECTORS - 20 + beyond), error());
            prop_assert_eq!(spoilt(&|segment| segment.0 = u64::MAX - beyond), error());
            prop_assert_eq!(spoilt(&|segment| segment.1 = u32::MAX), error());
            let unmaps = zeroes && bit == 0;
            let flagged = spoilt(&|segment| segment.2 = 1 << bit);
            prop_assert_eq!(flagged, if unmaps { Ok(RequestType::WriteZeroes) } else { unsupported });
            // The unknown flag decides, wherever the other error is.
            let both = vec![(SECTORS, 1, 0), (0, 1, 2), (SECTORS, 1, 0)];
            prop_assert_eq!(Layout::of_segments(kind, both).parse(), unsupported);
            let mut cut = Layout::of_segments(kind, vec![(10, 20, 0); count]);
            cut.descriptors[1].1 -= odd;
            prop_assert_eq!(cut.parse(), error());
            let mut into_guest = Layout::of_segments(kind, vec![(10, 20, 0); count]);
            into_guest.descriptors[1].2 = WRITE;
            prop_assert_eq!(into_guest.parse(), error());
        }

        #[test]
        fn valid_requests_say_what_was_asked(write in any::<bool>(), sector in 0..SECTORS, sectors in 1u32..100) {
            let kind = if write { VIRTIO_BLK_T_OUT } else { VIRTIO_BLK_T_IN };
            let parsed = Layout::valid(kind, sector, sectors).parse();
            if sector + u64::from(sectors) > SECTORS {
                prop_assert_eq!(parsed, error());
            } else {
                let range = match parsed.unwrap() {
                    RequestType::Write(range) if write => range,
                    RequestType::Read(range) if !write => range,
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
            prop_assert_eq!(spoilt(&|layout| layout.kind = 100 + odd), Ok(RequestType::Answer(Status::Unsupported)));
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
