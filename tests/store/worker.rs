//! Carries out what the store plans, as a queue's worker does, a step at a time.

use std::io;
use std::sync::Arc;

use sealblk::store::layered::{
    Base, LayeredError, LayeredStore, Medium, NewStore, ObjectId, OpenLayered, Uuid,
};
use sealblk::store::{BLOCK_SECTORS, Change, Pass, Planned, ReadPlan, Slot, WritePlan};
use sealblk::units::{ByteLen, Capacity, SectorRange};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::medium::Recording;
use crate::sectors::{SECTOR, UNREAD, Value, open, seal};

/// Questions after which a store that always says "later" counts as stuck.
const PATIENCE: usize = 64;

/// An open store with one worker.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) store: Arc<LayeredStore<Recording>>,
    wake: Arc<EventFd>,
}

/// A part of a write that is planned.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) start: u64,
    pub(crate) count: u64,
    value: Value,
    plan: Plan,
}

#[derive(Debug)]
enum Plan {
    InPlace { offset: u64, pass: Pass },
    Change(Change),
}

/// A boot of the host.
pub(crate) fn boot(number: u8) -> [u8; 16] {
    [number + 1; 16]
}

pub(crate) fn range(start: u64, count: u64) -> SectorRange {
    Capacity::LARGEST.range(start, count).unwrap()
}

/// Makes a store with a journal of one cluster.
pub(crate) fn create(
    medium: &Recording,
    sectors: u64,
    uuid: u8,
    base: Option<(&Recording, ObjectId)>,
) -> Result<(), LayeredError> {
    create_with_journal(medium, sectors, uuid, base, 1)
}

/// Makes a store with a journal of so many clusters.
pub(crate) fn create_with_journal(
    medium: &Recording,
    sectors: u64,
    uuid: u8,
    base: Option<(&Recording, ObjectId)>,
    clusters: u32,
) -> Result<(), LayeredError> {
    let new = NewStore {
        uuid: Uuid([uuid; 16]),
        capacity: Capacity::new(ByteLen(sectors * SECTOR as u64)).unwrap(),
        disk: ObjectId([b'd'; 16]),
        lineage: ObjectId([b'l'; 16]),
    };
    let base = base.map(|(medium, snapshot)| Base { medium, snapshot });
    new.create_with_journal(medium, base.as_ref(), clusters)
}

impl Disk {
    pub(crate) fn open(
        medium: Recording,
        bases: Vec<Recording>,
        boot: [u8; 16],
    ) -> Result<Self, LayeredError> {
        Ok(Self::of(OpenLayered { boot, load: false }.open(medium, bases)?))
    }

    /// As commands do it that examine and repair.
    pub(crate) fn maintain(medium: Recording, boot: [u8; 16]) -> Result<Self, LayeredError> {
        let options = OpenLayered { boot, load: false };
        Ok(Self::of(options.open_for_maintenance(medium, Vec::new())?))
    }

    fn of(store: LayeredStore<Recording>) -> Self {
        Disk {
            store: Arc::new(store),
            wake: Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()),
        }
    }

    /// Asks until there is an answer, and does the background's work in between.
    fn ask<T>(&self, mut question: impl FnMut() -> io::Result<Planned<T>>) -> io::Result<T> {
        for _ in 0..PATIENCE {
            if let Planned::Now(answer) = question()? {
                return Ok(answer);
            }
            self.store.step().map_err(io::Error::other)?;
        }
        panic!("the store says \"later\" for ever");
    }

    /// Plans the beginning of a write; none if the store must be asked later.
    pub(crate) fn try_begin(&self, start: u64, count: u64, value: Value) -> io::Result<Option<Part>> {
        let part = |count, plan| Part {
            start,
            count,
            value,
            plan,
        };
        Ok(match self.store.plan_write(range(start, count), &self.wake)? {
            Planned::Later => None,
            Planned::Now(WritePlan::InPlace { offset, count, pass }) => {
                Some(part(count, Plan::InPlace { offset, pass }))
            }
            Planned::Now(WritePlan::Change(change)) => Some(part(change.data, Plan::Change(change))),
        })
    }

    /// Writes what is planned to the medium. On an error the part is given up.
    pub(crate) fn put(&self, part: Part) -> io::Result<Part> {
        match self.write_data(&part) {
            Ok(()) => Ok(part),
            Err(error) => {
                match part.plan {
                    Plan::InPlace { pass, .. } => self.store.end(pass),
                    Plan::Change(change) => self.store.abandon(change),
                }
                Err(error)
            }
        }
    }

    fn write_data(&self, part: &Part) -> io::Result<()> {
        let own = self.store.medium(Slot::default());
        match &part.plan {
            Plan::InPlace { offset, .. } => {
                let mut bytes = vec![0; part.count as usize * SECTOR];
                seal_all(part.value, part.start, &mut bytes);
                own.write(*offset, &bytes)
            }
            Plan::Change(change) => {
                let bytes = self.compose(change, part)?;
                own.write(change.offset, &bytes)
            }
        }
    }

    fn compose(&self, change: &Change, part: &Part) -> io::Result<Vec<u8>> {
        let mut span = vec![0; change.count as usize * SECTOR];
        seal_all(0, change.start, &mut span);
        for source in change.sources.iter().flatten() {
            let mut bytes = vec![0; source.blocks as usize * BLOCK_SECTORS as usize * SECTOR];
            self.store.medium(source.slot).read(source.offset, &mut bytes)?;
            let block_bytes = BLOCK_SECTORS as usize * SECTOR;
            for block in (0..16).filter(|block| source.mask >> block & 1 == 1) {
                let from = (block - source.first_block as usize) * block_bytes;
                let to = block * block_bytes;
                span[to..to + block_bytes].copy_from_slice(&bytes[from..from + block_bytes]);
            }
        }
        let at = (part.start - change.start) as usize * SECTOR;
        seal_all(
            part.value,
            part.start,
            &mut span[at..at + part.count as usize * SECTOR],
        );
        Ok(span)
    }

    /// Makes it part of the disk.
    pub(crate) fn finish(&self, part: Part) -> io::Result<()> {
        match part.plan {
            Plan::InPlace { pass, .. } => {
                self.store.end(pass);
                Ok(())
            }
            Plan::Change(change) => self.store.commit(&mut vec![change]),
        }
    }

    pub(crate) fn write(&self, start: u64, count: u64, value: Value) -> io::Result<()> {
        let mut at = start;
        while at < start + count {
            let part = self.ask(|| {
                let part = self.try_begin(at, start + count - at, value)?;
                Ok(part.map_or(Planned::Later, Planned::Now))
            })?;
            at += part.count;
            let part = self.put(part)?;
            self.finish(part)?;
        }
        Ok(())
    }

    /// Whole blocks only, as a request for it is rounded.
    pub(crate) fn discard(&self, start: u64, count: u64) -> io::Result<()> {
        let mut at = start.next_multiple_of(BLOCK_SECTORS);
        let end = (start + count) / BLOCK_SECTORS * BLOCK_SECTORS;
        while at < end {
            at += self.ask(|| self.store.discard(range(at, end - at), &self.wake))?;
        }
        Ok(())
    }

    /// Like [`Disk::discard`], of whole blocks, once: how many sectors are done; none if the store must be asked later.
    pub(crate) fn try_discard(&self, start: u64, count: u64) -> io::Result<Option<u64>> {
        Ok(match self.store.discard(range(start, count), &self.wake)? {
            Planned::Now(done) => Some(done),
            Planned::Later => None,
        })
    }

    pub(crate) fn write_zeroes(&self, start: u64, count: u64) -> io::Result<()> {
        let (first, end) = (start.next_multiple_of(BLOCK_SECTORS), start + count);
        let last = end / BLOCK_SECTORS * BLOCK_SECTORS;
        if first >= last {
            return self.write(start, count, 0);
        }
        self.write(start, first - start, 0)?;
        self.discard(first, last - first)?;
        self.write(last, end - last, 0)
    }

    pub(crate) fn flush(&self) -> io::Result<()> {
        self.store.poison().check()?;
        let point = self.store.begin_flush();
        let medium = self.store.medium(Slot::default());
        let marked = medium.sync().and_then(|()| {
            if !point.needs_mark() {
                return Ok(());
            }
            self.store.mark(point)?;
            medium.sync()
        });
        marked.inspect_err(|error| self.store.poison().set("a flush to it has failed", error))?;
        self.store.flushed(point);
        Ok(self.store.poison().check()?)
    }

    pub(crate) fn read(&self, start: u64, count: u64) -> io::Result<Vec<Value>> {
        let mut values = Vec::new();
        while (values.len() as u64) < count {
            let at = start + values.len() as u64;
            match self.ask(|| self.store.plan_read(range(at, start + count - at), &self.wake))? {
                ReadPlan::Zeros { count } => values.resize(values.len() + count as usize, 0),
                ReadPlan::Transfer {
                    slot,
                    offset,
                    count,
                    pass,
                } => {
                    let mut bytes = vec![0; count as usize * SECTOR];
                    let read = self.store.medium(slot).read(offset, &mut bytes);
                    self.store.end(pass);
                    read?;
                    let sectors = (at..).zip(bytes.chunks(SECTOR));
                    values.extend(sectors.map(|(sector, bytes)| open(sector, bytes)));
                }
            }
        }
        Ok(values)
    }

    pub(crate) fn read_all(&self) -> io::Result<Vec<Value>> {
        self.read(0, self.store.sectors())
    }

    /// Everything; where that fails, [`UNREAD`], block by block.
    pub(crate) fn read_what_can_be(&self) -> Vec<Value> {
        if let Ok(all) = self.read_all() {
            return all;
        }
        let end = self.store.sectors();
        let blocks = (0..end).step_by(BLOCK_SECTORS as usize);
        let read = |at: u64| {
            let count = BLOCK_SECTORS.min(end - at);
            let values = self.read(at, count);
            values.unwrap_or_else(|_| vec![UNREAD; count as usize])
        };
        blocks.flat_map(read).collect()
    }
}

fn seal_all(value: Value, start: u64, bytes: &mut [u8]) {
    for (sector, bytes) in (start..).zip(bytes.chunks_mut(SECTOR)) {
        seal(value, sector, bytes);
    }
}
