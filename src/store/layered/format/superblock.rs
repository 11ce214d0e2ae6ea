//! The superblock: two copies, written in turn. The one with the higher sequence counts.

use std::io;

use super::page::{Page, blank};
use super::{
    CLUSTER_PAGES, FIRST_VERSION, ObjectId, PAGE_BYTES, PageRef, TWIN_CLUSTER, Uuid, VERSION, array, get_u32,
    get_u64, put_u32, put_u64,
};

const MAGIC: [u8; 8] = *b"SEALBLK\0";
/// Page of the copy with an even sequence.
pub(crate) const FIRST_PAGE: u64 = 0;
/// Page of the copy with an odd sequence.
pub(crate) const TWIN_PAGE: u64 = TWIN_CLUSTER as u64 * CLUSTER_PAGES;
/// Page where the first version has the copy with an odd sequence. Since then there is a [mark](mark).
pub(crate) const MARK_PAGE: u64 = 1;
/// Most clusters of a journal. Each of the first version has at least [`TWIN_CLUSTER`].
const JOURNAL_CLUSTERS: u32 = 512;
const AT_SNAPSHOTS: usize = 256;
const AT_PINS: usize = 1280;
const AT_OPERATIONS: usize = 1792;
/// Most pages of snapshots.
pub(crate) const SNAPSHOT_PAGES: usize = 64;
/// Most pages of pins.
pub(crate) const PIN_PAGES: usize = 32;
/// Operations that are remembered.
pub(crate) const OPERATIONS: usize = 64;

/// Everything is found from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Of the format.
    pub(crate) version: u32,
    pub(crate) uuid: Uuid,
    /// Counts the superblocks that were written.
    pub(crate) sequence: u64,
    /// Size of the disk in sectors.
    pub(crate) sectors: u64,
    /// Counts the times that the store was opened; records carry it.
    pub(crate) incarnation: u32,
    /// Generation that new clusters are born in.
    pub(crate) generation: u32,
    /// Boot of the host under which the records of this incarnation are written; random where the store was closed.
    pub(crate) boot: [u8; 16],
    pub(crate) journal_clusters: u32,
    /// First record that is not in the pages.
    pub(crate) journal_start: u64,
    /// Records below are on the medium, with their data.
    pub(crate) committed: u64,
    /// Clusters of the file, in use or not.
    pub(crate) clusters: u32,
    /// Leaves that the live map lacks are those of the base.
    pub(crate) inherits: bool,
    /// Snapshot that the disk goes on from.
    pub(crate) parent: ObjectId,
    pub(crate) map: PageRef,
    pub(crate) space: PageRef,
    pub(crate) bases: PageRef,
    pub(crate) disk: ObjectId,
    pub(crate) lineage: ObjectId,
    pub(crate) snapshots: Vec<PageRef>,
    pub(crate) pins: Vec<PageRef>,
    /// Operations that were made, oldest first.
    pub(crate) operations: Vec<ObjectId>,
}

/// Why a page is no superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// Not a store at all, or badly damaged.
    #[error("there is no superblock")]
    Missing,
    /// Its checksum is wrong, or its contents make no sense.
    #[error("the superblock is damaged")]
    Damaged,
    /// The medium does not give it: the kernel's error.
    #[error("the superblock cannot be read: {}", io::Error::from_raw_os_error(*.0))]
    Unreadable(i32),
    /// A later version of the format.
    #[error("the store has format version {0}, and this program knows versions up to {VERSION}")]
    Version(u32),
}

/// The page that says to programs of the first version, which look for a copy of the superblock there, that they must not
/// use the store, even if they cannot read the first copy.
pub(crate) fn mark() -> Box<Page> {
    let mut page = blank();
    page[..8].copy_from_slice(&MAGIC);
    put_u32(&mut page[..], 8, VERSION);
    page
}

impl Superblock {
    /// The page that it is written to.
    pub(crate) fn page(&self) -> u64 {
        match (self.sequence % 2, self.version) {
            (0, _) => FIRST_PAGE,
            (_, FIRST_VERSION) => MARK_PAGE,
            _ => TWIN_PAGE,
        }
    }

    pub(crate) fn encode(&self) -> Box<Page> {
        let mut page = Box::new([0; PAGE_BYTES]);
        let bytes = &mut page[..];
        bytes[..8].copy_from_slice(&MAGIC);
        put_u32(bytes, 8, self.version);
        bytes[16..32].copy_from_slice(&self.uuid.0);
        put_u64(bytes, 32, self.sequence);
        put_u64(bytes, 40, self.sectors);
        put_u32(bytes, 48, self.incarnation);
        put_u32(bytes, 52, self.generation);
        bytes[56..72].copy_from_slice(&self.boot);
        put_u32(bytes, 72, self.journal_clusters);
        put_u32(bytes, 76, self.clusters);
        put_u64(bytes, 80, self.journal_start);
        put_u64(bytes, 88, self.committed);
        put_u32(bytes, 96, u32::from(self.inherits));
        bytes[104..120].copy_from_slice(&self.parent.0);
        self.map.put(&mut bytes[120..]);
        self.space.put(&mut bytes[136..]);
        self.bases.put(&mut bytes[152..]);
        bytes[168..184].copy_from_slice(&self.disk.0);
        bytes[184..200].copy_from_slice(&self.lineage.0);
        put_u32(bytes, 200, self.snapshots.len() as u32);
        put_u32(bytes, 204, self.pins.len() as u32);
        put_u32(bytes, 208, self.operations.len() as u32);
        for (index, reference) in self.snapshots.iter().enumerate() {
            reference.put(&mut bytes[AT_SNAPSHOTS + index * PageRef::BYTES..]);
        }
        for (index, reference) in self.pins.iter().enumerate() {
            reference.put(&mut bytes[AT_PINS + index * PageRef::BYTES..]);
        }
        for (index, operation) in self.operations.iter().enumerate() {
            let at = AT_OPERATIONS + index * 16;
            bytes[at..at + 16].copy_from_slice(&operation.0);
        }
        let crc = crc32c::crc32c(bytes);
        put_u32(bytes, 12, crc);
        page
    }

    /// # Errors
    /// [`SuperblockError`].
    pub(crate) fn decode(page: &Page) -> Result<Self, SuperblockError> {
        if page[..8] != MAGIC {
            return Err(SuperblockError::Missing);
        }
        // What comes after the version may be different in a later one, the checksum too.
        let version = get_u32(page, 8);
        if version > VERSION {
            return Err(SuperblockError::Version(version));
        }
        let least = if version == FIRST_VERSION { TWIN_CLUSTER } else { 1 };
        let is_sound = (FIRST_VERSION..=VERSION).contains(&version)
            && get_u32(page, 12) == superblock_checksum(page)
            && (least..=JOURNAL_CLUSTERS).contains(&get_u32(page, 72));
        if !is_sound {
            return Err(SuperblockError::Damaged);
        }
        let count = |at: usize, most: usize| {
            let count = get_u32(page, at) as usize;
            (count <= most).then_some(count).ok_or(SuperblockError::Damaged)
        };
        let references = |at: usize, count: usize| -> Vec<PageRef> {
            let reference = |index| PageRef::get(&page[at + index * PageRef::BYTES..]);
            (0..count).map(reference).collect()
        };
        Ok(Superblock {
            version,
            uuid: Uuid(array(page, 16)),
            sequence: get_u64(page, 32),
            sectors: get_u64(page, 40),
            incarnation: get_u32(page, 48),
            generation: get_u32(page, 52),
            boot: array(page, 56),
            journal_clusters: get_u32(page, 72),
            clusters: get_u32(page, 76),
            journal_start: get_u64(page, 80),
            committed: get_u64(page, 88),
            inherits: get_u32(page, 96) != 0,
            parent: ObjectId(array(page, 104)),
            map: PageRef::get(&page[120..]),
            space: PageRef::get(&page[136..]),
            bases: PageRef::get(&page[152..]),
            disk: ObjectId(array(page, 168)),
            lineage: ObjectId(array(page, 184)),
            snapshots: references(AT_SNAPSHOTS, count(200, SNAPSHOT_PAGES)?),
            pins: references(AT_PINS, count(204, PIN_PAGES)?),
            operations: (0..count(208, OPERATIONS)?)
                .map(|index| ObjectId(array(page, AT_OPERATIONS + 16 * index)))
                .collect(),
        })
    }
}

fn superblock_checksum(page: &Page) -> u32 {
    let crc = crc32c::crc32c(&page[..12]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &page[16..])
}
