//! The disk cipher between guest memory that is split anywhere and private buffers, on every kernel, against `xts-mode`.

mod kernels;

use aes::Aes256;
use aes::cipher::KeyInit;
use hkdf::Hkdf;
use proptest::collection::vec;
use proptest::prelude::*;
use sealblk::crypto::{Destination, DiskCipher, Kernel, SEGMENT_SECTORS, Source};
use sealblk::units::{ByteLen, Capacity, SECTOR_BYTES, Sector};
use sealblk_proto::keys::LineageKey;
use sha2::Sha256;
use vm_memory::VolatileSlice;
use xts_mode::{Xts128, get_tweak_default};

const LINEAGE: [u8; 32] = [0x3d; 32];

/// What memory around the pieces holds.
const AROUND: u8 = 0xa7;

fn cipher(kernel: Kernel) -> DiskCipher {
    let lineage = LineageKey::new_with(|key| *key = LINEAGE).unwrap();
    DiskCipher::derive_for(kernel, &lineage, Capacity::new(ByteLen(2 << 40)).unwrap()).unwrap()
}

/// The reference for each of the first two segments.
fn references() -> [Xts128<Aes256>; 2] {
    [0u64, 1].map(|segment| {
        let mut key = [0; 64];
        let info = [b"sealblk xts v1".as_slice(), &segment.to_le_bytes()].concat();
        let expander = Hkdf::<Sha256>::from_prk(&LINEAGE).unwrap();
        expander.expand(&info, &mut key).unwrap();
        let [data, tweak] = [&key[..32], &key[32..]].map(|half| Aes256::new_from_slice(half).unwrap());
        Xts128::new(data, tweak)
    })
}

fn encrypted(references: &[Xts128<Aes256>; 2], first: u64, plain: &[u8]) -> Vec<u8> {
    let mut out = plain.to_vec();
    for (sector, bytes) in (first..).zip(out.chunks_mut(SECTOR_BYTES)) {
        let reference = &references[(sector / SEGMENT_SECTORS) as usize];
        reference.encrypt_sector(bytes, get_tweak_default(sector.into()));
    }
    out
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    let mix = |i: usize| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8;
    (0..length).map(|i| mix(i) ^ seed).collect()
}

/// Memory in pieces of these lengths, with gaps that move each of them to another alignment.
struct Memory {
    bytes: Vec<u8>,
    pieces: Vec<std::ops::Range<usize>>,
}

impl Memory {
    fn new(lengths: &[usize], offset: usize) -> Self {
        let mut end = offset;
        let mut pieces = Vec::new();
        for length in lengths {
            pieces.push(end..end + length);
            end += length + 3;
        }
        Memory {
            bytes: vec![AROUND; end + 64],
            pieces,
        }
    }

    fn holding(lengths: &[usize], offset: usize, contents: &[u8]) -> Self {
        let mut memory = Memory::new(lengths, offset);
        let mut done = 0;
        for piece in memory.pieces.clone() {
            let next = done + piece.len();
            memory.bytes[piece].copy_from_slice(&contents[done..next]);
            done = next;
        }
        assert_eq!(done, contents.len());
        memory
    }

    fn volatile(&mut self) -> Vec<VolatileSlice<'_>> {
        let whole = VolatileSlice::from(self.bytes.as_mut_slice());
        let piece = |range: &std::ops::Range<usize>| whole.subslice(range.start, range.len()).unwrap();
        self.pieces.iter().map(piece).collect()
    }

    fn contents(&self) -> Vec<u8> {
        self.pieces
            .iter()
            .flat_map(|piece| &self.bytes[piece.clone()])
            .copied()
            .collect()
    }

    /// Nothing but the pieces was written to.
    fn is_untouched_around(&self) -> bool {
        let mut bytes = self.bytes.clone();
        for piece in &self.pieces {
            bytes[piece.clone()].fill(AROUND);
        }
        bytes.iter().all(|byte| *byte == AROUND)
    }
}

/// Both directions, with guest memory of these pieces and private memory at this offset.
fn check(
    disk: &DiskCipher,
    references: &[Xts128<Aes256>; 2],
    first: u64,
    lengths: &[usize],
    offset: usize,
    private: usize,
) {
    let total = lengths.iter().sum();
    let plain = pattern(total, first as u8);
    let expected = encrypted(references, first, &plain);
    let mut source = Memory::holding(lengths, offset, &plain);
    let before = source.bytes.clone();
    let mut buffer = vec![AROUND; private + total + 64];
    let pieces = source.volatile().into_iter().map(Source::from);
    disk.encrypt(Sector(first), pieces, &mut buffer[private..private + total])
        .unwrap();
    assert!(
        buffer[private..private + total] == expected,
        "{lengths:?} at {offset}"
    );
    assert!(source.bytes == before, "guest memory is only read");
    buffer[private..private + total].fill(AROUND);
    assert!(buffer.iter().all(|byte| *byte == AROUND));

    let mut destination = Memory::new(lengths, offset);
    buffer[private..private + total].copy_from_slice(&expected);
    let before = buffer.clone();
    let pieces = destination.volatile().into_iter().map(Destination::from);
    disk.decrypt(Sector(first), &buffer[private..private + total], pieces)
        .unwrap();
    assert!(destination.contents() == plain, "{lengths:?} at {offset}");
    assert!(destination.is_untouched_around());
    assert!(buffer == before, "the private buffer is only read");
}

#[test]
fn every_length_up_to_64_sectors_and_across_the_first_tebibyte() {
    let references = references();
    for kernel in kernels::available() {
        let disk = cipher(kernel);
        for count in 1..=64 {
            let bytes = count * SECTOR_BYTES;
            check(&disk, &references, 5, &[bytes], 0, 0);
            check(
                &disk,
                &references,
                SEGMENT_SECTORS - 1 - count as u64 / 2,
                &[bytes],
                0,
                0,
            );
        }
    }
}

#[test]
fn every_alignment_of_either_side() {
    let references = references();
    for kernel in kernels::available() {
        let disk = cipher(kernel);
        for offset in 0..64 {
            check(&disk, &references, 1 << 31, &[3 * SECTOR_BYTES], offset, 0);
            check(&disk, &references, 1 << 30, &[3 * SECTOR_BYTES], 0, offset);
            check(&disk, &references, 7, &[2 * SECTOR_BYTES], offset, 63 - offset);
        }
    }
}

#[test]
fn every_place_to_split_three_sectors_at() {
    let references = references();
    for kernel in kernels::available() {
        let disk = cipher(kernel);
        let all = 3 * SECTOR_BYTES;
        for at in 0..=all {
            check(
                &disk,
                &references,
                SEGMENT_SECTORS - 2,
                &[at, all - at],
                at % 7,
                0,
            );
        }
        check(&disk, &references, 9, &vec![1; all], 0, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_pieces_are_as_in_the_reference(
        kernel in proptest::sample::select(kernels::available()),
        count in 1..=64usize, before in 0..80u64, offset in 0..64usize, private in 0..64usize,
        // Mostly within sectors, and some that are whole.
        cuts in vec(prop_oneof![0..64 * SECTOR_BYTES, (0..64usize).prop_map(|sector| sector * SECTOR_BYTES)], 0..20),
    ) {
        let all = count * SECTOR_BYTES;
        let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut % all).chain([0, all]).collect();
        ends.sort_unstable();
        let lengths: Vec<usize> = ends.windows(2).map(|ends| ends[1] - ends[0]).collect();
        check(&cipher(kernel), &references(), SEGMENT_SECTORS - before, &lengths, offset, private);
    }
}
