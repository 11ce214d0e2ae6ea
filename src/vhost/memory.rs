//! The guest's memory as the frontend describes it, mapped.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use serde::{Deserialize, Serialize};
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryRegion, GuestRegionMmap, MmapRegion};

use super::sigbus::{self, MappedRange};
use crate::limits::MAX_MEMORY_REGIONS;
use crate::virtqueue::GuestMemory;

/// `f_type` of hugetlbfs (`statfs(2)`), also of a memfd of huge pages.
const HUGETLBFS_MAGIC: rustix::fs::FsWord = 0x958458f6;

/// A region or table that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error("the memory region's numbers overflow or are zero")]
    Invalid,
    #[error("the memory region ends at byte {end} of a file of {file} bytes")]
    BeyondFile { end: u64, file: u64 },
    #[error("a memory region of huge pages does not begin and end with one")]
    PartOfHugePage,
    #[error("the memory region cannot be mapped")]
    Map(#[source] io::Error),
    #[error("memory regions overlap")]
    Overlap,
    #[error("more than {MAX_MEMORY_REGIONS} memory regions")]
    TooMany,
    #[error("there is no such memory region")]
    Unknown,
}

/// One region: its mapping, and the frontend's address of it.
#[derive(Debug)]
struct Region {
    // Before the mapping, so that it is dropped first.
    guard: MappedRange,
    mapping: Arc<GuestRegionMmap<()>>,
    guest_address: u64,
    user_address: u64,
    len: u64,
}

/// A memory region, as the frontend has described it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegionState {
    pub guest_address: u64,
    pub user_address: u64,
    pub len: u64,
    pub offset: u64,
}

/// All regions. Shared with the workers while they run; changed only while none does.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryTable {
    regions: Vec<Arc<Region>>,
}

/// Guest memory for one worker.
#[derive(Debug)]
pub(super) struct MappedMemory {
    memory: GuestMemory,
    table: MemoryTable,
}

impl MappedMemory {
    pub(super) fn guest(&self) -> &GuestMemory {
        &self.memory
    }

    /// Whether some of it was lost under us; then what was read from it must not be used.
    pub(super) fn has_faulted(&self) -> bool {
        // The copy comes before the question, also on processors that reorder loads.
        fence(Ordering::Acquire);
        sigbus::has_any_faulted() && self.table.regions.iter().any(|region| region.guard.has_faulted())
    }
}

impl MemoryTable {
    /// Maps a region and adds it.
    pub(super) fn add(&mut self, region: &VhostUserMemoryRegion, file: File) -> Result<(), MemoryError> {
        if self.regions.len() == MAX_MEMORY_REGIONS {
            return Err(MemoryError::TooMany);
        }
        let region = map(region, file)?;
        let position = self
            .regions
            .partition_point(|other| other.guest_address < region.guest_address);
        let overlaps = |low: &Region, high: &Region| low.guest_address + low.len > high.guest_address;
        let before = position
            .checked_sub(1)
            .is_some_and(|index| overlaps(&self.regions[index], &region));
        if before
            || self
                .regions
                .get(position)
                .is_some_and(|next| overlaps(&region, next))
        {
            return Err(MemoryError::Overlap);
        }
        self.regions.insert(position, Arc::new(region));
        Ok(())
    }

    /// Removes a region with just these addresses and length.
    pub(super) fn remove(&mut self, region: &VhostUserMemoryRegion) -> Result<(), MemoryError> {
        let wanted = (region.guest_phys_addr, region.user_addr, region.memory_size);
        let position = self
            .regions
            .iter()
            .position(|known| (known.guest_address, known.user_address, known.len) == wanted)
            .ok_or(MemoryError::Unknown)?;
        self.regions.remove(position);
        Ok(())
    }

    /// The guest physical address that the frontend knows as `user_address`.
    pub(super) fn translate(&self, user_address: u64) -> Option<GuestAddress> {
        self.regions.iter().find_map(|region| {
            let offset = user_address.checked_sub(region.user_address)?;
            (offset < region.len).then(|| GuestAddress(region.guest_address + offset))
        })
    }

    /// Number of regions.
    pub(super) fn count(&self) -> usize {
        self.regions.len()
    }

    /// Bytes of all regions.
    pub(super) fn bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.len).sum()
    }

    /// What a successor maps the regions by, in the order of the descriptors that are added to `files`.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn export(&self, files: &mut Vec<OwnedFd>) -> io::Result<Vec<RegionState>> {
        let export = |region: &Arc<Region>| {
            let file = region.mapping.file_offset().ok_or(io::ErrorKind::InvalidData)?;
            files.push(file.file().try_clone()?.into());
            Ok(RegionState {
                guest_address: region.guest_address,
                user_address: region.user_address,
                len: region.len,
                offset: file.start(),
            })
        };
        self.regions.iter().map(export).collect()
    }

    /// All of it, for a worker; none if there is no region.
    pub(super) fn mapped(&self) -> Option<Arc<MappedMemory>> {
        let regions = self.regions.iter().map(|region| region.mapping.clone()).collect();
        let memory = GuestMemory::from_arc_regions(regions).ok()?;
        Some(Arc::new(MappedMemory {
            memory,
            table: self.clone(),
        }))
    }
}

/// Whether a mapping of the file consists of pages of another size than usual.
pub(super) fn is_of_huge_pages(file: &File) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(file)?.f_type == HUGETLBFS_MAGIC)
}

fn map(region: &VhostUserMemoryRegion, file: File) -> Result<Region, MemoryError> {
    let VhostUserMemoryRegion {
        guest_phys_addr,
        memory_size,
        user_addr,
        mmap_offset,
    } = *region;
    let ends = [guest_phys_addr, user_addr, mmap_offset].map(|start| start.checked_add(memory_size));
    let (true, Ok(len), Some(end)) = (memory_size > 0, usize::try_from(memory_size), ends[2]) else {
        return Err(MemoryError::Invalid);
    };
    if ends.contains(&None) {
        return Err(MemoryError::Invalid);
    }
    // Mapping beyond the file's end succeeds, and every access there is a SIGBUS.
    let metadata = file.metadata().map_err(MemoryError::Map)?;
    if metadata.is_file() && end > metadata.len() {
        return Err(MemoryError::BeyondFile {
            end,
            file: metadata.len(),
        });
    }
    // The kernel rounds such a mapping up, and then it can be neither unmapped nor replaced by its length.
    let page = metadata.blksize();
    let huge = is_of_huge_pages(&file).map_err(MemoryError::Map)?;
    if huge && !(memory_size.is_multiple_of(page) && mmap_offset.is_multiple_of(page)) {
        return Err(MemoryError::PartOfHugePage);
    }
    let mapping = MmapRegion::from_file(FileOffset::new(file, mmap_offset), len)
        .map_err(|error| MemoryError::Map(io::Error::other(error)))?;
    let guard = MappedRange::guard(mapping.as_ptr(), mapping.size()).map_err(MemoryError::Map)?;
    let mapping = GuestRegionMmap::new(mapping, GuestAddress(guest_phys_addr)).ok_or(MemoryError::Invalid)?;
    Ok(Region {
        guard,
        mapping: Arc::new(mapping),
        guest_address: guest_phys_addr,
        user_address: user_addr,
        len: memory_size,
    })
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    fn file(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn regions_are_sorted_translated_and_removed() {
        let mut table = MemoryTable::default();
        assert!(table.mapped().is_none());
        table
            .add(
                &VhostUserMemoryRegion::new(0x10000, 0x2000, 0x7000_0000, 0x1000),
                file(0x3000),
            )
            .unwrap();
        table
            .add(
                &VhostUserMemoryRegion::new(0, 0x1000, 0x6000_0000, 0),
                file(0x1000),
            )
            .unwrap();
        assert_eq!(table.translate(0x7000_1fff), Some(GuestAddress(0x11fff)));
        assert_eq!(table.translate(0x7000_2000), None);
        assert_eq!(table.translate(0x6fff_ffff), None);
        let mapped = table.mapped().unwrap();
        mapped.guest().write_obj(5u32, GuestAddress(0x11000)).unwrap();
        table
            .remove(&VhostUserMemoryRegion::new(0x10000, 0x2000, 0x7000_0000, 0))
            .unwrap();
        assert_eq!(table.translate(0x7000_0000), None);
        // A worker that still holds the old table may go on.
        assert_eq!(mapped.guest().read_obj::<u32>(GuestAddress(0x11000)).unwrap(), 5);
        assert!(!mapped.has_faulted());
    }

    #[test]
    fn hostile_regions_are_refused() {
        let mut table = MemoryTable::default();
        let mut add = |gpa, len, user, offset| {
            table.add(&VhostUserMemoryRegion::new(gpa, len, user, offset), file(0x2000))
        };
        assert!(matches!(add(0, 0, 0, 0), Err(MemoryError::Invalid)));
        assert!(matches!(add(u64::MAX, 0x1000, 0, 0), Err(MemoryError::Invalid)));
        assert!(matches!(add(0, 0x1000, u64::MAX, 0), Err(MemoryError::Invalid)));
        assert!(matches!(add(0, 0x1000, 0, u64::MAX), Err(MemoryError::Invalid)));
        assert!(matches!(
            add(0, 0x2000, 0, 0x1000),
            Err(MemoryError::BeyondFile {
                end: 0x3000,
                file: 0x2000
            })
        ));
        add(0x1000, 0x2000, 0, 0).unwrap();
        assert!(matches!(add(0x2000, 0x1000, 0, 0), Err(MemoryError::Overlap)));
        assert!(matches!(add(0, 0x1001, 0, 0), Err(MemoryError::Overlap)));
        assert!(matches!(
            table.remove(&VhostUserMemoryRegion::new(0x1000, 0x1000, 0, 0)),
            Err(MemoryError::Unknown)
        ));
    }
}
