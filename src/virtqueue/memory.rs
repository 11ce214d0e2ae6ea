//! Guest memory as this process sees it.
//!
//! Each request reads and writes it in a dozen places, nearly always within one region: these functions ask for that region
//! directly. The iterators of `vm-memory`, which can cross regions, take twice the time wherever the compiler does not inline
//! them.

use vm_memory::{
    Address as _, ByteValued, Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion as _,
    VolatileSlice,
};

/// Guest memory as it is mapped here.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// What lies at `address` in one region, at most `len` bytes. `None`: nothing is there.
#[inline]
pub(super) fn front(memory: &GuestMemory, address: GuestAddress, len: usize) -> Option<VolatileSlice<'_>> {
    let (region, start) = memory.to_region_addr(address)?;
    let within = region.len() - start.raw_value();
    region.get_slice(start, len.min(within as usize)).ok()
}

/// The object at `address`. `None`: it is not in guest memory as a whole.
#[inline]
pub(super) fn read_obj<T: ByteValued>(memory: &GuestMemory, address: GuestAddress) -> Option<T> {
    match front(memory, address, size_of::<T>())? {
        slice if slice.len() == size_of::<T>() => slice.read_obj(0).ok(),
        _ => memory.read_obj(address).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_two_regions_is_read_as_a_whole() {
        let regions = [(GuestAddress(0), 0x1000), (GuestAddress(0x1000), 0x1000)];
        let memory = GuestMemory::from_ranges(&regions).unwrap();
        let value = 0x0123_4567_89ab_cdef_u64;
        for address in [0xff8, 0xffc, 0xfff, 0x1000, 0x1ff8].map(GuestAddress) {
            memory.write_obj(value, address).unwrap();
            assert_eq!(read_obj(&memory, address), Some(value), "{address:?}");
        }
        for address in [0x1ff9, 0x2000, u64::MAX].map(GuestAddress) {
            assert_eq!(read_obj::<u64>(&memory, address), None, "{address:?}");
        }
        assert_eq!(
            front(&memory, GuestAddress(0xffc), 8).map(|slice| slice.len()),
            Some(4)
        );
    }
}
