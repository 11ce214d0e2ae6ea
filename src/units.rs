//! Units as types, so that a sector is never taken for a byte offset.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in a sector: the unit of virtio-blk (virtio 1.2, section 5.2) and of one XTS data unit here.
pub const SECTOR_BYTES: usize = 512;

/// Index of a 512-byte sector of the virtual disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sector(pub u64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteLen(pub u64);

/// Sectors of the virtual disk, known to lie within its capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectorRange {
    start: Sector,
    count: u64,
}

/// Size of a disk: whole sectors, and few enough that every byte offset fits an `i64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capacity(u64);

/// Size of a disk that may grow while it is used.
#[derive(Debug)]
pub struct GrowingCapacity(AtomicU64);

/// A range of sectors that a disk does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{count} sectors from sector {start} are beyond the disk's end")]
pub struct OutOfRange {
    start: u64,
    count: u64,
}

/// A size that is no disk's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes: a disk has at least one sector of 512 bytes, whole sectors, and at most 64 TiB")]
pub struct InvalidCapacity(u64);

impl Sector {
    /// Offset of its first byte.
    pub fn offset(self) -> u64 {
        self.0 * SECTOR_BYTES as u64
    }
}

impl ByteLen {
    /// Largest disk: 64 TiB.
    pub const LARGEST_DISK: ByteLen = ByteLen(64 << 40);
}

impl Capacity {
    /// Of the largest disk: 64 TiB.
    pub const LARGEST: Capacity = Capacity(ByteLen::LARGEST_DISK.0 / SECTOR_BYTES as u64);

    /// # Errors
    /// [`InvalidCapacity`] for zero, for parts of a sector, and above 64 TiB.
    pub fn new(size: ByteLen) -> Result<Self, InvalidCapacity> {
        let whole = size.0 > 0 && size.0.is_multiple_of(SECTOR_BYTES as u64);
        if !whole || size > ByteLen::LARGEST_DISK {
            return Err(InvalidCapacity(size.0));
        }
        Ok(Capacity(size.0 / SECTOR_BYTES as u64))
    }

    /// Number of 512-byte sectors.
    pub const fn sectors(self) -> u64 {
        self.0
    }

    /// Size in bytes.
    pub fn bytes(self) -> ByteLen {
        ByteLen(self.0 * SECTOR_BYTES as u64)
    }

    /// The `count` sectors from `start`, if the disk has them all.
    ///
    /// # Errors
    /// [`OutOfRange`].
    pub fn range(self, start: u64, count: u64) -> Result<SectorRange, OutOfRange> {
        match start.checked_add(count) {
            Some(end) if end <= self.0 => Ok(SectorRange {
                start: Sector(start),
                count,
            }),
            _ => Err(OutOfRange { start, count }),
        }
    }

    /// How many sectors of a range the disk has, from its beginning on.
    pub fn within(self, range: SectorRange) -> u64 {
        self.0.saturating_sub(range.start().0).min(range.count())
    }
}

impl GrowingCapacity {
    /// Begins with `capacity`.
    pub fn new(capacity: Capacity) -> Self {
        GrowingCapacity(AtomicU64::new(capacity.0))
    }

    /// The present size.
    pub fn get(&self) -> Capacity {
        // With the new size a reader sees all that was prepared for it before.
        Capacity(self.0.load(Ordering::Acquire))
    }

    /// Grows to `capacity`; a smaller one changes nothing.
    pub fn grow(&self, capacity: Capacity) {
        self.0.fetch_max(capacity.0, Ordering::AcqRel);
    }
}

impl SectorRange {
    /// First sector.
    pub fn start(self) -> Sector {
        self.start
    }

    /// Number of sectors.
    pub fn count(self) -> u64 {
        self.count
    }

    /// Length in bytes.
    pub fn bytes(self) -> ByteLen {
        ByteLen(self.count * SECTOR_BYTES as u64)
    }

    /// The part of it that starts `skip` sectors in and has at most `count` sectors.
    ///
    /// # Panics
    /// If `skip` is beyond its end.
    pub fn slice(self, skip: u64, count: u64) -> SectorRange {
        assert!(skip <= self.count);
        SectorRange {
            start: Sector(self.start.0 + skip),
            count: count.min(self.count - skip),
        }
    }
}

impl fmt::Display for SectorRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sectors at {}", self.count, self.start.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_have_limits() {
        for bad in [0, 1, 511, 513, (64 << 40) + 512, u64::MAX] {
            assert_eq!(Capacity::new(ByteLen(bad)), Err(InvalidCapacity(bad)));
        }
        assert_eq!(Capacity::new(ByteLen(64 << 40)).unwrap().sectors(), 1 << 37);
    }

    #[test]
    fn ranges_stay_within_the_capacity() {
        let capacity = Capacity::new(ByteLen(4096)).unwrap();
        assert!(capacity.range(0, 8).is_ok());
        assert!(capacity.range(8, 0).is_ok());
        for (start, count) in [(0, 9), (8, 1), (9, 0), (u64::MAX, 1), (1, u64::MAX)] {
            assert_eq!(capacity.range(start, count), Err(OutOfRange { start, count }));
        }
        let part = capacity.range(2, 6).unwrap().slice(4, 10);
        assert_eq!((part.start(), part.count()), (Sector(6), 2));
    }

    #[test]
    fn a_disk_grows_and_never_shrinks() {
        let of = |bytes| Capacity::new(ByteLen(bytes)).unwrap();
        let growing = GrowingCapacity::new(of(4096));
        growing.grow(of(8192));
        growing.grow(of(512));
        assert_eq!(growing.get(), of(8192));
        growing.grow(Capacity::LARGEST);
        assert_eq!(growing.get().bytes(), ByteLen::LARGEST_DISK);
    }
}
