//! The file of a layered store that somebody else has written, or that has been damaged: opened, examined, repaired, used.
//!
//! Changes to a sound store come with the checksums above them mended, if the input wants it, so that what comes behind
//! the checksums is reached.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::input::Input;
use crate::store::layered::{
    Base, LayeredError, LayeredStore, Medium, NewStore, ObjectId, OpenLayered, Operation, Uuid,
};
use crate::store::{BLOCK_BYTES, BLOCK_SECTORS, Change, Planned, ReadPlan, Slot, WritePlan};
use crate::units::{ByteLen, Capacity, SECTOR_BYTES};

const PAGE: usize = 4096;
const CLUSTER_BLOCKS: u64 = 16;
/// Blocks of the disks: more than one page of the map has.
const BLOCKS: u64 = 254 * CLUSTER_BLOCKS;
/// What the medium has room for.
const MEDIUM_BYTES: u64 = 1 << 30;
const MEDIUM_PAGES: usize = 8192;
/// Questions after which a store that always says "later" counts as stuck.
const PATIENCE: usize = 256;
/// Most operations of one input.
const STEPS: usize = 64;
const BOOT: [u8; 16] = [7; 16];
/// Steps from a page up to a superblock, and more.
const DEPTH: usize = 8;
const RECORD: usize = 64;
/// Page where the journal begins.
const JOURNAL_PAGE: u64 = 16;
/// Pages of the journal.
const JOURNAL_PAGES: u64 = 16;

type Page = [u8; PAGE];

/// A medium in memory. Clones are the same one.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Content>>);

/// Copies are cheap: they share pages.
#[derive(Clone, Debug, Default)]
struct Content {
    pages: BTreeMap<u64, Arc<Page>>,
    size: u64,
}

impl Memory {
    fn of(content: &Content) -> Self {
        Memory(Arc::new(Mutex::new(content.clone())))
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().expect("nothing panics with it")
    }
}

/// Each page that a range touches, from where in it, and the part of the bytes.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE as u64) as usize;
        let count = (PAGE - within).min(len - done);
        let part = done..done + count;
        done += count;
        (count > 0).then_some((at / PAGE as u64, within, part))
    })
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

impl Medium for Memory {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let content = self.content();
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > content.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, within, part) in parts(offset, bytes.len()) {
            let to = &mut bytes[part];
            match content.pages.get(&page) {
                Some(page) => to.copy_from_slice(&page[within..within + to.len()]),
                None => to.fill(0),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).ok_or_else(full)?;
        self.grow(end)?;
        let mut content = self.content();
        if content.pages.len() > MEDIUM_PAGES {
            return Err(full());
        }
        for (page, within, part) in parts(offset, bytes.len()) {
            let page = content.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + part.len()].copy_from_slice(&bytes[part]);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.content().size)
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        if size > MEDIUM_BYTES {
            return Err(full());
        }
        let mut content = self.content();
        content.size = content.size.max(size);
        Ok(())
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= MEDIUM_BYTES => Ok(()),
            _ => Err(full()),
        }
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.saturating_add(len) / PAGE as u64;
        let pages = offset.div_ceil(PAGE as u64)..end;
        if !pages.is_empty() {
            self.content().pages.retain(|page, _| !pages.contains(page));
        }
        Ok(())
    }
}

fn id(number: u8) -> ObjectId {
    ObjectId([b'a' + number % 26; 16])
}

/// An open store, used by one worker.
struct Disk {
    store: LayeredStore<Memory>,
    wake: Arc<EventFd>,
    operations: u8,
}

impl Disk {
    fn open(
        how: OpenLayered,
        lenient: bool,
        medium: Memory,
        bases: Vec<Memory>,
    ) -> Result<Self, LayeredError> {
        let store = match lenient {
            false => how.open(medium, bases),
            true => how.open_for_maintenance(medium, bases),
        };
        Ok(Disk {
            store: store?,
            wake: Arc::new(EventFd::new(EFD_NONBLOCK).expect("an eventfd")),
            operations: 0,
        })
    }

    fn own(&self) -> &Memory {
        self.store.medium(Slot::default())
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

    /// A block in a disk that may be of any size.
    fn block(&self, number: u16) -> Option<crate::units::SectorRange> {
        let blocks = self.store.sectors() / BLOCK_SECTORS;
        let block = u64::from(number).checked_rem(blocks)?;
        Capacity::LARGEST.range(block * BLOCK_SECTORS, BLOCK_SECTORS).ok()
    }

    fn write(&self, number: u16, byte: u8) -> io::Result<()> {
        let Some(range) = self.block(number) else {
            return Ok(());
        };
        match self.ask(|| self.store.plan_write(range, &self.wake))? {
            WritePlan::InPlace { offset, count, pass } => {
                let bytes = vec![byte; count as usize * SECTOR_BYTES];
                let written = self.own().write(offset, &bytes);
                self.store.end(pass);
                written
            }
            WritePlan::Change(change) => {
                let written = self
                    .compose(&change, range.start().0, byte)
                    .and_then(|bytes| self.own().write(change.offset, &bytes));
                match written {
                    Ok(()) => self.store.commit(&mut vec![change]),
                    Err(error) => {
                        self.store.abandon(change);
                        Err(error)
                    }
                }
            }
        }
    }

    fn compose(&self, change: &Change, start: u64, byte: u8) -> io::Result<Vec<u8>> {
        let mut span = vec![0; change.count as usize * SECTOR_BYTES];
        for source in change.sources.iter().flatten() {
            let mut bytes = vec![0; source.blocks as usize * BLOCK_BYTES];
            self.store.medium(source.slot).read(source.offset, &mut bytes)?;
            for (index, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
                let number = source.first_block as usize + index;
                if source.mask >> number & 1 == 1 {
                    span[number * BLOCK_BYTES..][..BLOCK_BYTES].copy_from_slice(block);
                }
            }
        }
        let at = (start - change.start) as usize * SECTOR_BYTES;
        span[at..][..change.data as usize * SECTOR_BYTES].fill(byte);
        Ok(span)
    }

    fn read(&self, number: u16) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; BLOCK_BYTES];
        let Some(range) = self.block(number) else {
            return Ok(bytes);
        };
        match self.ask(|| self.store.plan_read(range, &self.wake))? {
            ReadPlan::Zeros { .. } => {}
            ReadPlan::Transfer {
                slot,
                offset,
                count,
                pass,
            } => {
                let part = &mut bytes[..count as usize * SECTOR_BYTES];
                let read = self.store.medium(slot).read(offset, part);
                self.store.end(pass);
                read?;
            }
        }
        Ok(bytes)
    }

    fn discard(&self, number: u16) -> io::Result<()> {
        let Some(range) = self.block(number) else {
            return Ok(());
        };
        self.ask(|| self.store.discard(range, &self.wake)).map(drop)
    }

    fn flush(&self) -> io::Result<()> {
        let point = self.store.begin_flush();
        if point.needs_mark() {
            self.store.mark(point)?;
        }
        self.store.flushed(point);
        Ok(())
    }

    fn operate(&mut self, operation: Operation) {
        self.operations += 1;
        let name = ObjectId([
            b'0' + self.operations % 10,
            self.operations,
            1,
            1,
            1,
            1,
            1,
            1,
            1,
            1,
            1,
            1,
            1,
            1,
            1,
            1,
        ]);
        let _ = self.store.operate(name, operation);
    }

    /// One thing that a guest or an operator wants. That it fails is no surprise here.
    fn step(&mut self, what: u8, number: u16) {
        let snapshot = id((number % 4) as u8);
        match what % 14 {
            0 | 1 => drop(self.write(number, what)),
            2 | 3 => drop(self.read(number)),
            4 => drop(self.discard(number)),
            5 => self.operate(Operation::Snapshot(snapshot)),
            6 => self.operate(Operation::Delete(snapshot)),
            7 => self.operate(Operation::Rollback(snapshot)),
            8 => {
                let disk = id((number >> 8) as u8);
                self.operate(match number & 4 {
                    0 => Operation::Pin { id: snapshot, disk },
                    _ => Operation::Unpin { id: snapshot, disk },
                });
            }
            9 => self.operate(match number {
                0 => Operation::Reinitialise,
                _ => Operation::Resize(self.store.sectors() + u64::from(number)),
            }),
            10 => drop(self.store.checkpoint_now()),
            11 => drop(self.store.work()),
            12 => drop(self.flush()),
            _ => {
                drop(self.store.report());
                drop(self.store.check_all(number & 1 == 1));
            }
        }
    }

    /// What every store goes through.
    fn use_it(&mut self) {
        drop(self.store.check_all(false));
        drop(self.read(0));
        drop(self.write(3, 9));
        self.operate(Operation::Snapshot(id(25)));
        drop(self.write(3, 10));
        drop(self.flush());
        drop(self.store.work());
        drop(self.store.check_all(true));
        drop(self.store.report());
        drop(self.store.checkpoint_now());
    }
}

/// Sound stores: an empty one; one with snapshots, pins and data; the same with records that are in no page yet; and a clone of
/// the second one's snapshot, which reads that store, too.
const KINDS: usize = 4;

fn sound(kind: usize) -> &'static (Content, Option<Content>) {
    static SOUND: [OnceLock<(Content, Option<Content>)>; KINDS] = [const { OnceLock::new() }; KINDS];
    SOUND[kind].get_or_init(|| match kind {
        0 => (made(1, None, |_| {}), None),
        1 => (made(2, None, |disk| fill(disk, true)), None),
        2 => (made(3, None, |disk| fill(disk, false)), None),
        _ => {
            let base = sound(1).0.clone();
            let clone = made(4, Some(&base), |disk| {
                disk.write(1, 21).expect("a sound store");
                disk.store.checkpoint_now().expect("a sound store");
                disk.write(700, 22).expect("a sound store");
            });
            (clone, Some(base))
        }
    })
}

fn made(uuid: u8, base: Option<&Content>, fill: impl FnOnce(&mut Disk)) -> Content {
    let medium = Memory::default();
    let bases: Vec<_> = base.map(Memory::of).into_iter().collect();
    let new = NewStore {
        uuid: Uuid([uuid; 16]),
        capacity: Capacity::new(ByteLen(BLOCKS * BLOCK_BYTES as u64)).expect("a size for a disk"),
        disk: id(3),
        lineage: id(11),
    };
    let of = bases.first().map(|medium| Base {
        medium,
        snapshot: id(0),
    });
    new.create_with_journal(&medium, of.as_ref(), 1)
        .expect("room for a store");
    let how = OpenLayered {
        boot: BOOT,
        load: true,
    };
    let mut disk = Disk::open(how, false, medium.clone(), bases).expect("a sound store");
    fill(&mut disk);
    drop(disk);
    medium.content().clone()
}

fn fill(disk: &mut Disk, rest: bool) {
    for number in 0..3 {
        disk.write(16 * number, 1 + number as u8).expect("a sound store");
    }
    disk.operate(Operation::Snapshot(id(0)));
    disk.store.work().expect("a sound store");
    disk.operate(Operation::Pin {
        id: id(0),
        disk: id(7),
    });
    disk.write(0, 11).expect("a sound store");
    disk.write(3, 12).expect("a sound store");
    disk.operate(Operation::Snapshot(id(1)));
    disk.store.checkpoint_now().expect("a sound store");
    disk.write(4000, 13).expect("a sound store");
    disk.discard(32).expect("a sound store");
    disk.flush().expect("a sound store");
    disk.operate(Operation::Delete(id(1)));
    if rest {
        disk.store.work().expect("a sound store");
        disk.store.checkpoint_now().expect("a sound store");
    }
}

/// One store: which, how it is changed behind its back, how it is opened, and what is done with it.
pub fn store(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let (content, base) = sound(usize::from(flags) % KINDS);
    let medium = Memory::of(content);
    let bases: Vec<_> = base.iter().map(Memory::of).collect();
    let changes = input.byte() % 16;
    for _ in 0..changes {
        let of_base = flags & 4 != 0 && !bases.is_empty();
        change(&mut input, if of_base { &bases[0] } else { &medium });
    }
    let how = OpenLayered {
        boot: if flags & 8 == 0 { BOOT } else { [9; 16] },
        load: flags & 16 != 0,
    };
    let lenient = flags & 32 != 0;
    let open = |lenient| Disk::open(how, lenient, medium.clone(), bases.clone());
    let Ok(mut disk) = open(lenient) else {
        // What is refused for a guest may be repaired.
        if let Ok(disk) = open(true) {
            drop(disk.store.check_all(true));
        }
        return;
    };
    let is_sound = changes == 0;
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        disk.step(input.byte(), input.short());
    }
    disk.use_it();
    if is_sound {
        let findings = disk.store.check_all(false).expect("a sound store");
        assert!(findings.is_clean(), "{findings:?}");
        assert_eq!(disk.read(3).expect("a sound store"), [10; BLOCK_BYTES]);
    }
    drop(disk);
    match open(lenient) {
        Ok(disk) => drop(disk.store.check_all(false)),
        Err(error) => assert!(!is_sound, "{error}"),
    }
}

/// One change: of a page, from somewhere in it on; it may get the contents of another page first.
fn change(input: &mut Input<'_>, medium: &Memory) {
    let mode = input.byte();
    let mut content = medium.content();
    let pages: Vec<u64> = metadata(&content).collect();
    let page = pages[usize::from(input.short()) % pages.len()];
    let mut bytes = *content.pages[&page];
    if mode & 2 != 0 {
        let other = pages[usize::from(input.short()) % pages.len()];
        bytes = *content.pages[&other];
    }
    let at = usize::from(input.short()) % PAGE;
    let with = input.counted();
    let count = with.len().min(PAGE - at);
    bytes[at..at + count].copy_from_slice(&with[..count]);
    let former = u32_at(&content.pages[&page][..], 4);
    content.pages.insert(page, Arc::new(bytes));
    if mode & 1 != 0 {
        mend(&mut content, page, at, former, 0);
    }
}

/// Pages that do not hold a guest's data.
fn metadata(content: &Content) -> impl Iterator<Item = u64> {
    let is_metadata = |(number, page): &(&u64, &Arc<Page>)| {
        let journal = JOURNAL_PAGE..JOURNAL_PAGE + JOURNAL_PAGES;
        page.starts_with(b"SBpg") || page.starts_with(b"SEALBLK\0") || journal.contains(number)
    };
    content
        .pages
        .iter()
        .filter(is_metadata)
        .map(|(number, _)| *number)
}

/// Makes all checksums right again after a change of a page that had the checksum `former`, and is so many steps above the
/// first.
fn mend(content: &mut Content, number: u64, at: usize, former: u32, steps: usize) {
    let uuid: [u8; 16] = content.pages[&0][16..32].try_into().expect("16 bytes");
    let page = content
        .pages
        .get_mut(&number)
        .map(Arc::make_mut)
        .expect("it is there");
    if page.starts_with(b"SEALBLK\0") {
        page[12..16].fill(0);
        let crc = crc32c::crc32c(page);
        page[12..16].copy_from_slice(&crc.to_le_bytes());
    } else if page.starts_with(b"SBpg") {
        page[4..8].fill(0);
        let crc = crc32c::crc32c(page);
        page[4..8].copy_from_slice(&crc.to_le_bytes());
        if crc != former && steps < DEPTH {
            mend_references(content, number, former, crc, steps);
        }
    } else {
        let record = &mut page[at / RECORD * RECORD..][..RECORD];
        let crc = crc32c::crc32c_append(crc32c::crc32c(&uuid), &record[4..]);
        record[..4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Whatever refers to the page gets its new checksum.
fn mend_references(content: &mut Content, number: u64, former: u32, crc: u32, steps: usize) {
    let reference = [&number.to_le_bytes()[..], &former.to_le_bytes()].concat();
    let others: Vec<u64> = metadata(content).filter(|other| *other != number).collect();
    for other in others {
        let found = content.pages[&other]
            .windows(reference.len())
            .position(|window| window == reference);
        if let Some(at) = found {
            let page = content
                .pages
                .get_mut(&other)
                .map(Arc::make_mut)
                .expect("it is there");
            let before = u32_at(&page[..], 4);
            page[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
            mend(content, other, at, before, steps + 1);
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}
