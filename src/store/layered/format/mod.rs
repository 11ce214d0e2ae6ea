//! The bytes of a layered store, as `docs/format.md` draws them. All numbers are little-endian.

pub(super) mod entry;
pub(super) mod page;
pub(super) mod record;
pub(super) mod superblock;
pub(super) mod tables;

use std::fmt;

/// Bytes of a page of metadata.
pub(super) const PAGE_BYTES: usize = 4096;
/// Bytes of a cluster, the unit in which space is allocated.
pub(super) const CLUSTER_BYTES: u64 = 64 << 10;
/// Blocks of a cluster: the unit in which it is known what is written.
pub(super) const CLUSTER_BLOCKS: u32 = 16;
/// Sectors of a cluster.
pub(super) const CLUSTER_SECTORS: u64 = CLUSTER_BYTES / 512;
/// Pages of a cluster.
pub(super) const CLUSTER_PAGES: u64 = CLUSTER_BYTES / PAGE_BYTES as u64;
/// Version of the format that is written, and the highest that is read.
pub(super) const VERSION: u32 = 2;
/// Version that has both copies of the superblock in the first two pages, and a journal without a gap.
pub(super) const FIRST_VERSION: u32 = 1;
/// Entries of a page of the map, and children of a page of an index.
pub(super) const FANOUT: usize = 252;
/// Physical clusters that one page of the space table describes.
pub(super) const SPACE_ENTRIES: usize = 1008;
/// First cluster of the journal; before it is one copy of the superblock.
pub(super) const JOURNAL_CLUSTER: u32 = 1;
/// Cluster of the other copy, so far from the first that no sector or erase block has both. Every store of the first
/// version has its journal there, which goes round it since.
pub(super) const TWIN_CLUSTER: u32 = 16;

/// Identity of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

/// Random part of the id of a snapshot, disk, lineage or operation: 16 ASCII characters; all zeros: none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub [u8; 16]);

impl ObjectId {
    /// No object.
    pub const NONE: ObjectId = ObjectId([0; 16]);

    /// From `prefix-` and 16 characters.
    pub fn parse(text: &str, prefix: &str) -> Option<Self> {
        let random = text.strip_prefix(prefix)?.strip_prefix('-')?;
        let good = random.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let bytes = random.as_bytes().try_into().ok()?;
        good.then_some(ObjectId(bytes))
    }

    /// Whether it is an object.
    pub fn is_some(self) -> bool {
        self != ObjectId::NONE
    }

    /// With its prefix.
    pub fn with_prefix(self, prefix: &str) -> String {
        format!("{prefix}-{self:?}")
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0).trim_end_matches('\0'))
    }
}

/// A page that another one points to. Page number 0 (a superblock) stands for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PageRef {
    /// Its number: offset in the file / 4096.
    pub(super) page: u64,
    /// CRC32C that it has, so that a stale page is found.
    pub(super) crc: u32,
    /// Generation in which it was written.
    pub(super) generation: u32,
}

impl PageRef {
    pub(super) const NONE: PageRef = PageRef {
        page: 0,
        crc: 0,
        generation: 0,
    };
    pub(super) const BYTES: usize = 16;

    pub(super) fn is_some(self) -> bool {
        self.page != 0
    }

    pub(super) fn put(self, bytes: &mut [u8]) {
        put_u64(bytes, 0, self.page);
        put_u32(bytes, 8, self.crc);
        put_u32(bytes, 12, self.generation);
    }

    pub(super) fn get(bytes: &[u8]) -> Self {
        PageRef {
            page: get_u64(bytes, 0),
            crc: get_u32(bytes, 8),
            generation: get_u32(bytes, 12),
        }
    }
}

pub(super) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub(super) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(super) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// The `N` bytes at `at`; the caller's buffer has a fixed size and holds them.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes")
}
