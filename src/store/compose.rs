//! The span of a change: which of its sectors come from where.

use std::ops::Range;

use super::{BLOCK_BYTES, BLOCK_SECTORS, BlocksToCopy};
use crate::units::SECTOR_BYTES;

/// Fills what is not data in `span`, which is whole blocks. `data` are the sectors of it that are filled already. Where
/// a block is in a source's mask, the rest of it is copied from that source, ciphertext as it is; `zeros` fills what comes
/// from nowhere, given the first sector, counted from the beginning of the span.
///
/// Each source comes with what was read of it: [`BlocksToCopy::blocks`] whole blocks.
///
/// # Errors
/// The errors of `zeros`.
pub(crate) fn compose<E>(
    span: &mut [u8],
    data: Range<u64>,
    sources: [Option<(BlocksToCopy, &[u8])>; 2],
    mut zeros: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    debug_assert!(span.len().is_multiple_of(BLOCK_BYTES));
    for block in 0..span.len() / BLOCK_BYTES {
        let source = sources
            .iter()
            .flatten()
            .find(|(source, _)| source.mask >> block & 1 == 1);
        for sectors in around(&data, block) {
            let bytes = sectors.start as usize * SECTOR_BYTES..sectors.end as usize * SECTOR_BYTES;
            if bytes.is_empty() {
                continue;
            }
            match source {
                Some((source, read)) => {
                    let skip = source.first_block as usize * BLOCK_BYTES;
                    span[bytes.clone()].copy_from_slice(&read[bytes.start - skip..bytes.end - skip]);
                }
                None => zeros(sectors.start, &mut span[bytes])?,
            }
        }
    }
    Ok(())
}

/// The sectors of a block before and after the data; either may be empty.
fn around(data: &Range<u64>, block: usize) -> [Range<u64>; 2] {
    let start = block as u64 * BLOCK_SECTORS;
    let end = start + BLOCK_SECTORS;
    let before = start..data.start.clamp(start, end);
    let after = data.end.clamp(before.end, end)..end;
    [before, after]
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::store::Slot;

    const DATA: u8 = 0xda;
    const ZERO: u8 = 0;

    fn source(first_block: u32, blocks: u32, mask: u16) -> BlocksToCopy {
        BlocksToCopy {
            slot: Slot::default(),
            offset: 0,
            first_block,
            blocks,
            mask,
        }
    }

    /// The sector, of a source read from the beginning of the span, that each byte is of.
    fn read_of(mark: u8, source: &BlocksToCopy) -> Vec<u8> {
        let sectors = u64::from(source.first_block) * BLOCK_SECTORS
            ..u64::from(source.first_block + source.blocks) * BLOCK_SECTORS;
        sectors
            .flat_map(|sector| [mark | sector as u8; SECTOR_BYTES])
            .collect()
    }

    proptest! {
        /// Against the definition, sector by sector.
        #[test]
        fn each_sector_comes_from_where_it_should(
            blocks in 1u64..=16,
            from in 0u64..128,
            len in 1u64..=128,
            first_mask in any::<u16>(),
            second_mask in any::<u16>(),
        ) {
            let sectors = blocks * BLOCK_SECTORS;
            let start = from % sectors;
            let data = start..(start + len).min(sectors);
            let span_mask = u16::MAX >> (16 - blocks);
            let masks = [first_mask & span_mask, second_mask & span_mask & !first_mask];
            let sources = masks.map(|mask| {
                let first = mask.trailing_zeros().min(blocks as u32 - 1);
                let last = 15u32.saturating_sub(mask.leading_zeros()).max(first);
                (mask != 0).then(|| source(first, last + 1 - first, mask))
            });
            let marks = [0x80u8, 0x00];
            let reads: Vec<Vec<u8>> = sources
                .iter()
                .zip(marks)
                .map(|(source, mark)| source.as_ref().map_or(Vec::new(), |source| read_of(mark, source)))
                .collect();
            let mut span = vec![0xee; blocks as usize * BLOCK_BYTES];
            span[data.start as usize * SECTOR_BYTES..data.end as usize * SECTOR_BYTES].fill(DATA);
            let mut zeroed = vec![false; sectors as usize];
            let with_bytes = [
                sources[0].map(|source| (source, &reads[0][..])),
                sources[1].map(|source| (source, &reads[1][..])),
            ];
            let outcome: Result<(), Infallible> = compose(&mut span, data.clone(), with_bytes, |first, bytes| {
                for sector in 0..bytes.len() / SECTOR_BYTES {
                    assert!(!std::mem::replace(&mut zeroed[first as usize + sector], true));
                }
                bytes.fill(ZERO);
                Ok(())
            });
            outcome.unwrap();
            for sector in 0..sectors {
                let block = sector / BLOCK_SECTORS;
                let of = |source: usize| masks[source] >> block & 1 == 1;
                let (expected, from_nowhere) = match () {
                    () if data.contains(&sector) => (DATA, false),
                    () if of(0) => (marks[0] | sector as u8, false),
                    () if of(1) => (marks[1] | sector as u8, false),
                    () => (ZERO, true),
                };
                let bytes = &span[sector as usize * SECTOR_BYTES..][..SECTOR_BYTES];
                prop_assert!(bytes.iter().all(|byte| *byte == expected), "sector {}", sector);
                prop_assert_eq!(zeroed[sector as usize], from_nowhere, "sector {}", sector);
            }
        }
    }

    #[test]
    fn an_error_of_the_zeros_is_returned() {
        let mut span = [1; BLOCK_BYTES];
        assert_eq!(compose(&mut span, 0..8, [None, None], |_, _| Err(())), Ok(()));
        assert_eq!(compose(&mut span, 1..8, [None, None], |_, _| Err(())), Err(()));
    }
}
