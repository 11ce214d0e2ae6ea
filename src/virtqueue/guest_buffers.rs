//! The guest's scattered buffers as one stream of bytes.
//!
//! Addresses and lengths are our private copy of the descriptors; the guest can change the descriptors afterwards
//! without any effect.

use vm_memory::{GuestAddress, GuestMemory as _, Permissions, VolatileSlice};

use super::memory::{self, GuestMemory};

/// A buffer is not in guest memory (any more).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a buffer is outside of guest memory")]
pub struct GuestFault;

/// What is written in one go where zeros are to be written.
static ZEROS: [u8; 4096] = [0; 4096];

#[derive(Clone, Copy, Debug)]
struct Segment {
    address: GuestAddress,
    len: usize,
}

/// Buffers of one direction, in the order of the chain.
#[derive(Debug, Default)]
pub struct GuestBuffers {
    segments: Vec<Segment>,
}

/// A position in [`GuestBuffers`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    segment: usize,
    offset: usize,
}

impl GuestBuffers {
    pub(super) fn clear(&mut self) {
        self.segments.clear();
    }

    pub(super) fn push(&mut self, address: GuestAddress, len: u32) {
        if len > 0 {
            self.segments.push(Segment {
                address,
                len: len as usize,
            });
        }
    }

    /// Total length in bytes.
    pub fn len(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len as u64).sum()
    }

    /// Whether there is not a byte.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether all of it is in guest memory.
    pub fn is_mapped(&self, memory: &GuestMemory) -> bool {
        self.segments
            .iter()
            .all(|segment| memory.check_range(segment.address, segment.len, Permissions::ReadWrite))
    }

    /// Takes `count` bytes off the front.
    pub(super) fn drop_front(&mut self, mut count: usize) {
        let mut whole = 0;
        for segment in &mut self.segments {
            if count < segment.len {
                segment.address.0 += count as u64;
                segment.len -= count;
                break;
            }
            count -= segment.len;
            whole += 1;
        }
        self.segments.drain(..whole);
    }

    /// Takes the last byte off and tells where it is.
    pub(super) fn pop_last_byte(&mut self) -> Option<GuestAddress> {
        let last = self.segments.last_mut()?;
        last.len -= 1;
        // The sum cannot wrap around: `is_mapped` was asked, or the write to it fails.
        let address = GuestAddress(last.address.0.wrapping_add(last.len as u64));
        if last.len == 0 {
            self.segments.pop();
        }
        Some(address)
    }

    /// Copies the bytes at `cursor` out of guest memory, filling `into`, and moves the cursor on.
    ///
    /// # Errors
    /// [`GuestFault`], also where the buffers are too short.
    pub fn read(&self, memory: &GuestMemory, cursor: &mut Cursor, into: &mut [u8]) -> Result<(), GuestFault> {
        let mut left = &mut *into;
        for piece in self.pieces(memory, cursor, left.len()) {
            let (part, rest) = left.split_at_mut(piece.len());
            piece.copy_to(part);
            left = rest;
        }
        left.is_empty().then_some(()).ok_or(GuestFault)
    }

    /// Copies all of `from` into guest memory at `cursor`, and moves the cursor on.
    ///
    /// # Errors
    /// [`GuestFault`], also where the buffers are too short.
    pub fn write(&self, memory: &GuestMemory, cursor: &mut Cursor, from: &[u8]) -> Result<(), GuestFault> {
        let mut left = from;
        for piece in self.pieces(memory, cursor, left.len()) {
            let (part, rest) = left.split_at(piece.len());
            piece.copy_from(part);
            left = rest;
        }
        left.is_empty().then_some(()).ok_or(GuestFault)
    }

    /// Writes `count` zeros into guest memory at `cursor`, and moves the cursor on.
    ///
    /// # Errors
    /// As [`GuestBuffers::write`].
    pub fn write_zeros(
        &self,
        memory: &GuestMemory,
        cursor: &mut Cursor,
        mut count: usize,
    ) -> Result<(), GuestFault> {
        while count > 0 {
            let zeros = &ZEROS[..count.min(ZEROS.len())];
            self.write(memory, cursor, zeros)?;
            count -= zeros.len();
        }
        Ok(())
    }

    /// The `count` bytes at `cursor`, as the pieces of memory that they lie in, and moves the cursor on with them. It ends
    /// early where the buffers are too short, or not in guest memory.
    pub fn pieces<'m>(
        &'m self,
        memory: &'m GuestMemory,
        cursor: &'m mut Cursor,
        count: usize,
    ) -> impl Iterator<Item = VolatileSlice<'m>> {
        let mut left = count;
        std::iter::from_fn(move || {
            let (address, len) = (left > 0).then(|| self.next_of(cursor, left).ok())??;
            let piece = memory::front(memory, address, len)?;
            self.advance(cursor, piece.len());
            left -= piece.len();
            Some(piece)
        })
    }

    /// Moves the cursor on by `count` bytes.
    ///
    /// # Errors
    /// [`GuestFault`] where the buffers are too short.
    pub fn skip(&self, cursor: &mut Cursor, mut count: usize) -> Result<(), GuestFault> {
        while count > 0 {
            let (_, len) = self.next_of(cursor, count)?;
            self.advance(cursor, len);
            count -= len;
        }
        Ok(())
    }

    /// Where the bytes at `cursor` are, and how many of at most `most` are in the same segment.
    fn next_of(&self, cursor: &Cursor, most: usize) -> Result<(GuestAddress, usize), GuestFault> {
        let segment = self.segments.get(cursor.segment).ok_or(GuestFault)?;
        let address = segment.address.0.checked_add(cursor.offset as u64);
        let address = GuestAddress(address.ok_or(GuestFault)?);
        Ok((address, most.min(segment.len - cursor.offset)))
    }

    /// Moves the cursor on by `len` bytes of its segment.
    fn advance(&self, cursor: &mut Cursor, len: usize) {
        cursor.offset += len;
        if cursor.offset == self.segments[cursor.segment].len {
            *cursor = Cursor {
                segment: cursor.segment + 1,
                offset: 0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::Bytes as _;

    use super::*;

    fn memory() -> GuestMemory {
        // Two regions that touch, and one apart.
        GuestMemory::from_ranges(&[
            (GuestAddress(0), 0x1000),
            (GuestAddress(0x1000), 0x1000),
            (GuestAddress(0x8000), 0x1000),
        ])
        .unwrap()
    }

    #[test]
    fn buffers_outside_of_memory_are_faults() {
        let memory = memory();
        for (address, len) in [
            (0x1fff, 2),
            (0x7fff, 1),
            (0x8000, 0x1001),
            (u64::MAX, 1),
            (u64::MAX - 3, 8),
        ] {
            let mut buffers = GuestBuffers::default();
            buffers.push(GuestAddress(address), len);
            assert!(!buffers.is_mapped(&memory), "{address:x}");
            let mut bytes = vec![0; len as usize];
            assert_eq!(
                buffers.read(&memory, &mut Cursor::default(), &mut bytes),
                Err(GuestFault)
            );
            let mut cursor = Cursor::default();
            let pieces = buffers.pieces(&memory, &mut cursor, len as usize);
            assert!(pieces.map(|piece| piece.len()).sum::<usize>() < len as usize);
        }
        let mut buffers = GuestBuffers::default();
        buffers.push(GuestAddress(0xff0), 0x20);
        assert!(buffers.is_mapped(&memory));
        assert_eq!(
            buffers.read(&memory, &mut Cursor::default(), &mut [0; 0x21]),
            Err(GuestFault)
        );
    }

    #[test]
    fn zeros_go_where_they_should_and_nowhere_else() {
        let memory = memory();
        let mut buffers = GuestBuffers::default();
        buffers.push(GuestAddress(0x100), 0x1800);
        buffers.push(GuestAddress(0x8000), 0x300);
        memory.write_slice(&[7; 0x2000], GuestAddress(0)).unwrap();
        memory.write_slice(&[7; 0x1000], GuestAddress(0x8000)).unwrap();
        let mut cursor = Cursor::default();
        buffers.skip(&mut cursor, 0x10).unwrap();
        buffers.write_zeros(&memory, &mut cursor, 0x1900).unwrap();
        let mut all = [0; 0x2000];
        memory.read_slice(&mut all, GuestAddress(0)).unwrap();
        let zeros = |bytes: &[u8]| bytes.iter().position(|byte| *byte == 0);
        assert_eq!(zeros(&all), Some(0x110));
        assert_eq!(all.iter().filter(|byte| **byte == 0).count(), 0x17f0);
        let mut tail = [0; 0x300];
        memory.read_slice(&mut tail, GuestAddress(0x8000)).unwrap();
        assert!(tail[..0x110].iter().all(|byte| *byte == 0) && zeros(&tail[0x110..]).is_none());
        assert_eq!(buffers.write_zeros(&memory, &mut cursor, 0x200), Err(GuestFault));
    }

    proptest! {
        #[test]
        fn scattered_bytes_come_back_in_order(
            lens in proptest::collection::vec(0u32..700, 1..12),
            cut in 0usize..64,
            seed in any::<u8>(),
        ) {
            let memory = memory();
            let mut buffers = GuestBuffers::default();
            let mut address = 0;
            for len in &lens {
                // Also across the border of the two regions.
                if address + u64::from(*len) > 0x2000 { break; }
                buffers.push(GuestAddress(address), *len);
                address += u64::from(*len) + 3;
            }
            let total = buffers.len() as usize;
            let data: Vec<u8> = (0..total).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
            buffers.write(&memory, &mut Cursor::default(), &data).unwrap();

            let cut = cut.min(total);
            let mut cursor = Cursor::default();
            let (mut head, mut tail) = (vec![0; cut], vec![0; total - cut]);
            buffers.read(&memory, &mut cursor, &mut head).unwrap();
            buffers.read(&memory, &mut cursor, &mut tail).unwrap();
            prop_assert_eq!([head, tail].concat(), data.clone());

            let mut gathered = Vec::new();
            let mut cursor = Cursor::default();
            for count in [cut, total - cut] {
                for piece in buffers.pieces(&memory, &mut cursor, count) {
                    let mut bytes = vec![0; piece.len()];
                    piece.copy_to(&mut bytes);
                    gathered.extend(bytes);
                }
            }
            prop_assert_eq!(&gathered, &data);
            prop_assert!(buffers.pieces(&memory, &mut cursor, 1).next().is_none());

            let mut skipped = Cursor::default();
            buffers.skip(&mut skipped, cut).unwrap();
            let mut tail = vec![0; total - cut];
            buffers.read(&memory, &mut skipped, &mut tail).unwrap();
            prop_assert_eq!(&tail[..], &data[cut..]);

            buffers.drop_front(cut);
            prop_assert_eq!(buffers.len() as usize, total - cut);
            let mut tail = vec![0; total - cut];
            buffers.read(&memory, &mut Cursor::default(), &mut tail).unwrap();
            prop_assert_eq!(&tail[..], &data[cut..]);
            if let Some(address) = buffers.pop_last_byte() {
                prop_assert_eq!(memory.read_obj::<u8>(address).unwrap(), data[total - 1]);
                prop_assert_eq!(buffers.len() as usize, total - cut - 1);
            }
        }
    }
}
