//! The device's configuration space (`struct virtio_blk_config`, virtio 1.2, section 5.2.4).

use crate::disk::Disk;
use crate::limits::{MAX_DISCARD_SECTORS, MAX_DISCARD_SEGMENTS, MAX_SEGMENTS};
use crate::store::BLOCK_SECTORS;
use crate::units::{Capacity, SECTOR_BYTES};

/// Bytes that a frontend may ask for (vhost-user, `VHOST_USER_MAX_CONFIG_SIZE`).
const SPACE_BYTES: usize = 256;

/// Blocks of 4 KiB are the unit that stores and guests handle best.
const PHYSICAL_BLOCK_EXPONENT: u8 = 3;

/// The whole space; what lies beyond the known fields reads as zeros.
pub(super) struct ConfigSpace([u8; SPACE_BYTES]);

impl ConfigSpace {
    /// As it is at this moment: the capacity may grow.
    pub(super) fn of(disk: &Disk, queues: u16, read_only: bool) -> Self {
        let discard = disk.store().is_layered() && !read_only;
        Self::new(disk.capacity(), queues, discard)
    }

    fn new(capacity: Capacity, queues: u16, discard: bool) -> Self {
        let mut space = [0; SPACE_BYTES];
        let mut put =
            |offset: usize, bytes: &[u8]| space[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, &capacity.sectors().to_le_bytes());
        put(12, &MAX_SEGMENTS.to_le_bytes());
        put(20, &(SECTOR_BYTES as u32).to_le_bytes());
        put(24, &[PHYSICAL_BLOCK_EXPONENT]);
        put(26, &(1u16 << PHYSICAL_BLOCK_EXPONENT).to_le_bytes());
        put(34, &queues.to_le_bytes());
        if discard {
            // The limits of DISCARD, then the same for WRITE_ZEROES. DISCARD does nothing to blocks that are not
            // covered whole; WRITE_ZEROES writes zeros there.
            put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
            put(40, &MAX_DISCARD_SEGMENTS.to_le_bytes());
            put(44, &(BLOCK_SECTORS as u32).to_le_bytes());
            put(48, &MAX_DISCARD_SECTORS.to_le_bytes());
            put(52, &MAX_DISCARD_SEGMENTS.to_le_bytes());
            put(56, &[1]);
        }
        ConfigSpace(space)
    }

    /// The bytes at `offset`, if all of them are in the space.
    pub(super) fn read(&self, offset: u32, size: u32) -> Option<&[u8]> {
        let start = offset as usize;
        self.0.get(start..start.checked_add(size as usize)?)
    }
}

#[cfg(test)]
mod tests {
    use virtio_bindings::virtio_blk::virtio_blk_config;

    use super::*;
    use crate::units::ByteLen;

    #[test]
    fn fields_are_where_the_kernel_expects_them() {
        let space = ConfigSpace::new(Capacity::new(ByteLen(1 << 30)).unwrap(), 5, true);
        let at = |offset: usize, len: usize| space.read(offset as u32, len as u32).unwrap();
        use std::mem::offset_of;
        assert_eq!(
            at(offset_of!(virtio_blk_config, capacity), 8),
            (1u64 << 21).to_le_bytes()
        );
        assert_eq!(
            at(offset_of!(virtio_blk_config, seg_max), 4),
            126u32.to_le_bytes()
        );
        assert_eq!(
            at(offset_of!(virtio_blk_config, blk_size), 4),
            512u32.to_le_bytes()
        );
        assert_eq!(at(offset_of!(virtio_blk_config, physical_block_exp), 1), [3]);
        assert_eq!(
            at(offset_of!(virtio_blk_config, min_io_size), 2),
            8u16.to_le_bytes()
        );
        assert_eq!(
            at(offset_of!(virtio_blk_config, num_queues), 2),
            5u16.to_le_bytes()
        );
        for (field, value) in [
            (offset_of!(virtio_blk_config, max_discard_sectors), 1u32 << 21),
            (offset_of!(virtio_blk_config, max_discard_seg), 1),
            (offset_of!(virtio_blk_config, discard_sector_alignment), 8),
            (offset_of!(virtio_blk_config, max_write_zeroes_sectors), 1 << 21),
            (offset_of!(virtio_blk_config, max_write_zeroes_seg), 1),
        ] {
            assert_eq!(at(field, 4), value.to_le_bytes());
        }
        assert_eq!(at(offset_of!(virtio_blk_config, write_zeroes_may_unmap), 1), [1]);
        let without = ConfigSpace::new(Capacity::new(ByteLen(1 << 30)).unwrap(), 5, false);
        assert!(without.read(36, 220).unwrap().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn offset_and_length_are_honoured() {
        let space = ConfigSpace::new(Capacity::new(ByteLen(512)).unwrap(), 1, false);
        assert_eq!(space.read(20, 2).unwrap(), [0, 2]);
        assert_eq!(space.read(0, 256).unwrap().len(), 256);
        for (offset, size) in [(0, 257), (256, 1), (255, 2), (u32::MAX, 1), (1, u32::MAX)] {
            assert!(space.read(offset, size).is_none(), "{offset} {size}");
        }
    }
}
