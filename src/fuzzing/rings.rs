//! A virtqueue whose driver changes everything while it is read, and the record of chains in flight that it was left with.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vm_memory::{Bytes, GuestAddress, MmapRegion, VolatileMemory};

use super::input::Input;
use crate::limits::{MAX_DISCARD_SECTORS, MAX_DISCARD_SEGMENTS_ONCE, MAX_REQUEST_BYTES};
use crate::units::{ByteLen, Capacity, SECTOR_BYTES, SectorRange};
use crate::virtqueue::{
    Chain, Cursor, Device, GuestMemory, InflightRecord, Request, RequestType, Ring, RingBroken, RingSetup,
    Scratch, Status, Token,
};

/// Guest physical: two regions with a gap between them.
const REGIONS: [(u64, usize); 2] = [(0, 0x4000), (0x5000, 0x1000)];
/// Most times that the device looks at the ring.
const STEPS: usize = 64;
/// Of a request's data, how much is copied.
const COPIED: u64 = 64 << 10;

/// What the driver changes, again and again.
struct Race {
    changes: Vec<(u16, u16)>,
    is_over: AtomicBool,
}

impl Race {
    fn of(input: &mut Input<'_>) -> Self {
        let count = input.byte() % 32;
        Race {
            changes: (0..count).map(|_| (input.short(), input.short())).collect(),
            is_over: AtomicBool::new(false),
        }
    }

    fn run(&self, memory: &GuestMemory) {
        while !self.is_over.load(Ordering::Acquire) {
            for (at, value) in &self.changes {
                // Not everywhere is memory.
                let at = GuestAddress(u64::from(at & !1) % 0x6000);
                let _ = memory.store(*value, at, Ordering::Relaxed);
            }
        }
    }
}

/// The device's side, with what it knows of the chains that it has.
struct DeviceSide<'m> {
    ring: Ring,
    memory: &'m GuestMemory,
    device: Device,
    scratch: Scratch,
    held: VecDeque<(Token, Request)>,
}

/// One queue: what is in memory and in the record at first, what changes, and what the device does.
pub fn rings(data: &[u8]) {
    let mut input = Input::new(data);
    let regions = REGIONS.map(|(start, len)| (GuestAddress(start), len));
    let memory = &GuestMemory::from_ranges(&regions).expect("memory");
    let flags = input.byte();
    let setup = setup(&mut input, flags);
    let record = (flags & 2 != 0).then(|| record(&mut input, setup.size)).flatten();
    for _ in 0..input.byte() {
        let at = GuestAddress(input.short().into());
        let _ = memory.write_slice(input.counted(), at);
    }
    let race = Race::of(&mut input);
    let device = Device {
        capacity: Capacity::new(ByteLen(1 << 20)).expect("a size for a disk"),
        read_only: flags & 4 != 0,
        discard: flags & 8 == 0,
        write_zeroes: flags & 16 == 0,
        segments: if flags & 32 == 0 {
            MAX_DISCARD_SEGMENTS_ONCE
        } else {
            1
        },
    };
    std::thread::scope(|scope| {
        if !race.changes.is_empty() {
            scope.spawn(|| race.run(memory));
        }
        if let Ok(ring) = Ring::new(&setup, memory, record) {
            let side = DeviceSide {
                ring,
                memory,
                device,
                scratch: Scratch::default(),
                held: VecDeque::new(),
            };
            // A ring that is broken is the end of it.
            let _ = side.run(&mut input);
        }
        race.is_over.store(true, Ordering::Release);
    });
}

fn setup(input: &mut Input<'_>, flags: u8) -> RingSetup {
    let size = input.byte();
    let event_idx = flags & 1 != 0;
    let next_available = input.short();
    if flags & 64 == 0 {
        return RingSetup {
            size: 1 << (size % 7),
            descriptors: GuestAddress(0),
            available: GuestAddress(0x1000),
            used: GuestAddress(0x2000),
            next_available,
            event_idx,
        };
    }
    let mut address = || GuestAddress(input.word().into());
    RingSetup {
        size: size.into(),
        descriptors: address(),
        available: address(),
        used: address(),
        next_available,
        event_idx,
    }
}

fn record(input: &mut Input<'_>, entries: u16) -> Option<InflightRecord> {
    let memory = MmapRegion::new(InflightRecord::bytes(entries.max(1))).expect("memory");
    for _ in 0..input.byte() {
        let at = input.short().into();
        // What lies behind its end is left out.
        let _ = memory.as_volatile_slice().write(input.counted(), at);
    }
    InflightRecord::new(Arc::new(memory), 0, entries)
}

impl DeviceSide<'_> {
    fn run(mut self, input: &mut Input<'_>) -> Result<(), RingBroken> {
        for _ in 0..STEPS {
            match input.byte() % 9 {
                0 | 1 => while self.take()? {},
                2 => _ = self.take()?,
                3 => self.complete_oldest()?,
                4 => {
                    if let Some((token, request)) = self.held.pop_back() {
                        self.complete(token, &request)?;
                    }
                }
                5 => _ = self.ring.needs_notification(self.memory)?,
                6 => _ = self.ring.enable_notification(self.memory)?,
                7 => self.ring.disable_notification(self.memory)?,
                _ => _ = self.ring.has_available(self.memory),
            }
            if input.is_empty() {
                break;
            }
        }
        while self.take()? {}
        while !self.held.is_empty() {
            self.complete_oldest()?;
        }
        assert_eq!(self.ring.in_flight(), 0, "each chain has been given back once");
        Ok(())
    }

    /// Whether there was a chain.
    fn take(&mut self) -> Result<bool, RingBroken> {
        // Chains that a predecessor had in flight count as well.
        let before = self.ring.in_flight();
        let was_left = self.ring.has_left();
        let Some((token, chain)) = self.ring.take(self.memory)? else {
            return Ok(false);
        };
        assert!(token.head() < self.ring.size(), "a head within the queue");
        let is_held = self.held.iter().any(|(other, _)| other.head() == token.head());
        assert!(!is_held, "a head that is in flight comes only once");
        assert_eq!(self.ring.in_flight(), before + usize::from(!was_left));
        assert!(self.ring.in_flight() <= usize::from(self.ring.size()));
        match parse(&mut self.scratch, chain, self.memory, &self.device) {
            Some(request) => self.held.push_back((token, request)),
            // The chain has no room for a status.
            None => self.ring.complete(self.memory, token, 0)?,
        }
        Ok(true)
    }

    fn complete_oldest(&mut self) -> Result<(), RingBroken> {
        match self.held.pop_front() {
            Some((token, request)) => self.complete(token, &request),
            None => Ok(()),
        }
    }

    fn complete(&mut self, token: Token, request: &Request) -> Result<(), RingBroken> {
        let used = request.write_status(self.memory, Status::Ok, 7);
        assert_eq!(used, 8, "the status is in guest memory, which does not go");
        self.ring.complete(self.memory, token, used)
    }
}

/// Parses a chain, and copies some of the data.
fn parse(scratch: &mut Scratch, chain: Chain<'_>, memory: &GuestMemory, device: &Device) -> Option<Request> {
    let mut request = Request::default();
    request.parse(scratch, chain, memory, device).ok()?;
    let (data, disk) = (&request.data, device.capacity);
    let is_within = |range: &SectorRange| disk.range(range.start().0, range.count()).as_ref() == Ok(range);
    let copied = data.len().min(COPIED) as usize;
    let mut bytes = vec![0; copied];
    match &request.operation {
        RequestType::Read(range) | RequestType::Write(range) => {
            assert!(is_within(range), "{range:?} is within the disk");
            assert_eq!(data.len(), range.count() * SECTOR_BYTES as u64);
            assert!(data.len() <= MAX_REQUEST_BYTES);
        }
        RequestType::Discard | RequestType::WriteZeroes => {
            assert!(request.segments.len() <= device.segments as usize);
            for segment in &request.segments {
                assert!(is_within(segment), "{segment:?} is within the disk");
                assert!((1..=u64::from(MAX_DISCARD_SECTORS)).contains(&segment.count()));
            }
        }
        RequestType::GetId => {}
        RequestType::Flush | RequestType::Answer(_) => return Some(request),
    }
    assert!(data.is_mapped(memory));
    if matches!(request.operation, RequestType::Read(_) | RequestType::GetId) {
        let written = data.write(memory, &mut Cursor::default(), &bytes);
        written.expect("what is in guest memory can be written");
    } else {
        let read = data.read(memory, &mut Cursor::default(), &mut bytes);
        read.expect("what is in guest memory can be read");
    }
    let mut cursor = Cursor::default();
    let pieces = data.pieces(memory, &mut cursor, copied);
    assert_eq!(pieces.map(|piece| piece.len()).sum::<usize>(), copied);
    Some(request)
}
