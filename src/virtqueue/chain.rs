//! A descriptor chain, read once, descriptor by descriptor.
//!
//! Our own and not the `virtio-queue` crate's, which gives chains only in the order of the available ring and ends them
//! silently where they are broken: a chain that a predecessor had in flight is found by its head.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, GuestAddress};

use super::memory::{self, GuestMemory};

const DESCRIPTOR_BYTES: u32 = size_of::<Descriptor>() as u32;

/// The chain does not end as it should: it leaves its table, is a loop, or is longer than a chain may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenChain;

/// The descriptors of a chain that are still to be read.
#[derive(Debug)]
pub struct Chain<'m> {
    memory: &'m GuestMemory,
    table: GuestAddress,
    /// Descriptors in the table.
    size: u16,
    next: Option<u16>,
    /// Descriptors that a chain in this table can still have.
    left: u16,
    indirect: bool,
    bytes: u32,
}

impl<'m> Chain<'m> {
    /// The chain that begins with descriptor `head` of a queue's table of `size` descriptors.
    pub fn new(memory: &'m GuestMemory, table: GuestAddress, size: u16, head: u16) -> Self {
        Chain {
            memory,
            table,
            size,
            next: Some(head),
            left: size,
            indirect: false,
            bytes: 0,
        }
    }

    fn read(&mut self, index: u16) -> Result<Descriptor, BrokenChain> {
        if index >= self.size || self.left == 0 {
            return Err(BrokenChain);
        }
        self.left -= 1;
        let offset = u64::from(index) * u64::from(DESCRIPTOR_BYTES);
        let address = self.table.checked_add(offset).ok_or(BrokenChain)?;
        memory::read_obj(self.memory, address).ok_or(BrokenChain)
    }

    /// Goes on in an indirect table (virtio 1.2, section 2.7.5.3), which holds the rest of the chain and no further table.
    fn enter(&mut self, descriptor: &Descriptor) -> Result<(), BrokenChain> {
        let count = u16::try_from(descriptor.len() / DESCRIPTOR_BYTES).map_err(|_| BrokenChain)?;
        if self.indirect || !descriptor.len().is_multiple_of(DESCRIPTOR_BYTES) {
            return Err(BrokenChain);
        }
        self.table = descriptor.addr();
        (self.size, self.left) = (count, count);
        self.indirect = true;
        Ok(())
    }

    fn advance(&mut self, index: u16) -> Result<Descriptor, BrokenChain> {
        let mut descriptor = self.read(index)?;
        if descriptor.refers_to_indirect_table() {
            self.enter(&descriptor)?;
            descriptor = self.read(0)?;
            if descriptor.refers_to_indirect_table() {
                return Err(BrokenChain);
            }
        }
        // Section 2.7.5.2 forbids chains of more than 2³² bytes.
        self.bytes = self.bytes.checked_add(descriptor.len()).ok_or(BrokenChain)?;
        self.next = descriptor.has_next().then(|| descriptor.next());
        Ok(descriptor)
    }
}

impl Iterator for Chain<'_> {
    type Item = Result<Descriptor, BrokenChain>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next.take()?;
        Some(self.advance(index))
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes as _;

    use super::*;

    const TABLE: u64 = 0x100;
    const NEXT: u16 = 1;
    const INDIRECT: u16 = 4;

    /// Lengths of the chain's descriptors, or why there are none.
    fn read(size: u16, head: u16, descriptors: &[(u64, u32, u16, u16)]) -> Result<Vec<u32>, BrokenChain> {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        for (index, (address, len, flags, next)) in descriptors.iter().enumerate() {
            let at = |offset: u64| GuestAddress(TABLE + 16 * index as u64 + offset);
            memory.write_obj(*address, at(0)).unwrap();
            memory.write_obj(*len, at(8)).unwrap();
            memory.write_obj(*flags, at(12)).unwrap();
            memory.write_obj(*next, at(14)).unwrap();
        }
        Chain::new(&memory, GuestAddress(TABLE), size, head)
            .map(|descriptor| descriptor.map(|descriptor| descriptor.len()))
            .collect()
    }

    #[test]
    fn a_chain_is_followed_from_any_head_and_into_an_indirect_table() {
        let chain = [(0, 1, 0, 0), (0, 2, NEXT, 3), (0, 3, 0, 0), (0, 4, NEXT, 0)];
        assert_eq!(read(4, 1, &chain), Ok(vec![2, 4, 1]));
        // The table is the rest of the same memory: descriptors 2 and 3.
        let indirect = [
            (0, 1, NEXT, 1),
            (TABLE + 32, 32, INDIRECT, 0),
            (0, 5, NEXT, 1),
            (0, 6, 0, 0),
        ];
        assert_eq!(read(2, 0, &indirect), Ok(vec![1, 5, 6]));
    }

    #[test]
    fn broken_chains_are_errors() {
        let broken: [&[(u64, u32, u16, u16)]; 6] = [
            // A loop, a head's or a successor's index beyond the table.
            &[(0, 1, NEXT, 1), (0, 1, NEXT, 0)],
            &[(0, 1, NEXT, 2)],
            // An indirect table within one, of a bad length, or outside of memory.
            &[(TABLE + 16, 16, INDIRECT, 0), (TABLE, 16, INDIRECT, 0)],
            &[(TABLE + 16, 15, INDIRECT, 0)],
            &[(0x20000, 16, INDIRECT, 0)],
            // More than 2³² bytes.
            &[(0, u32::MAX, NEXT, 1), (0, 1, 0, 0)],
        ];
        for chain in broken {
            assert_eq!(read(2, 0, chain), Err(BrokenChain), "{chain:?}");
        }
        assert_eq!(read(2, 2, &[(0, 1, 0, 0); 3]), Err(BrokenChain));
    }
}
