//! XTS-AES-256 and the disk cipher against `xts-mode`, which goes block by block, on random input.

mod kernels;

use aes::Aes256;
use aes::cipher::KeyInit;
use aes::cipher::inout::InOutBuf;
use hkdf::Hkdf;
use proptest::collection::vec;
use proptest::prelude::*;
use sealblk::crypto::{Direction, DiskCipher, KEY_BYTES, Kernel, SEGMENT_SECTORS, XtsAes256};
use sealblk::units::{ByteLen, Capacity, SECTOR_BYTES, Sector};
use sealblk_proto::keys::LineageKey;
use sha2::Sha256;
use xts_mode::{Xts128, get_tweak_default};

fn reference(key: &[u8; KEY_BYTES]) -> Xts128<Aes256> {
    let cipher = |half: &[u8]| Aes256::new_from_slice(half).unwrap();
    Xts128::new(cipher(&key[..KEY_BYTES / 2]), cipher(&key[KEY_BYTES / 2..]))
}

/// The key of one TiB of a disk.
fn segment_key(lineage: &[u8; 32], segment: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    let info = [b"sealblk xts v1".as_slice(), &segment.to_le_bytes()].concat();
    let expander = Hkdf::<Sha256>::from_prk(lineage).unwrap();
    expander.expand(&info, &mut key).unwrap();
    key
}

fn keys() -> impl Strategy<Value = [u8; KEY_BYTES]> {
    any::<[u8; KEY_BYTES]>().prop_filter("equal halves", |key| key[..32] != key[32..])
}

/// `length` bytes that follow from a seed; shrinking them one by one would teach nothing.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn available_kernels() -> impl Strategy<Value = Kernel> {
    proptest::sample::select(kernels::available())
}

fn sector_numbers() -> impl Strategy<Value = u64> {
    let around = |middle: u64| middle.saturating_sub(200)..=middle.saturating_add(200);
    prop_oneof![
        0..=u64::MAX,
        around(0),
        around(1 << 31),
        around(1 << 32),
        around(u64::MAX)
    ]
}

/// Lengths of units: every remainder, and around the places where runs, batches and groups end.
fn unit_lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        16..600usize,
        960..1100usize,
        7600..7800usize,
        32_700..32_900usize,
        16..70_000usize
    ]
}

/// One operation in place and one out of place, which must agree.
fn process(data: &[u8], operation: impl Fn(InOutBuf<'_, '_, u8>)) -> Vec<u8> {
    let mut out = vec![0xee; data.len()];
    operation(InOutBuf::new(data, &mut out).unwrap());
    let mut in_place = data.to_vec();
    operation(in_place.as_mut_slice().into());
    assert!(in_place == out, "in place and out of place differ");
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn units_of_any_length_are_as_in_the_reference(
        kernel in available_kernels(), key in keys(), tweak in any::<[u8; 16]>(), seed in any::<u64>(), length in unit_lengths(),
    ) {
        let plain = bytes(seed, length);
        let xts = XtsAes256::with_kernel(kernel, &key).unwrap();
        let encrypted = process(&plain, |data| xts.process_unit(Direction::Encrypt, &tweak, data).unwrap());
        let mut expected = plain.clone();
        reference(&key).encrypt_sector(&mut expected, tweak.into());
        prop_assert!(encrypted == expected);
        let decrypted = process(&encrypted, |data| xts.process_unit(Direction::Decrypt, &tweak, data).unwrap());
        prop_assert!(decrypted == plain);
    }

    #[test]
    fn sectors_are_as_in_the_reference(
        kernel in available_kernels(), key in keys(), first in sector_numbers(), seed in any::<u64>(),
        count in 1..200usize,
    ) {
        let plain = bytes(seed, count * SECTOR_BYTES);
        let xts = XtsAes256::with_kernel(kernel, &key).unwrap();
        let encrypted = process(&plain, |data| {
            xts.process_sectors(Direction::Encrypt, Sector(first), data).unwrap();
        });
        let mut expected = plain.clone();
        reference(&key).encrypt_area(&mut expected, SECTOR_BYTES, first.into(), get_tweak_default);
        prop_assert!(encrypted == expected);
        let decrypted = process(&encrypted, |data| {
            xts.process_sectors(Direction::Decrypt, Sector(first), data).unwrap();
        });
        prop_assert!(decrypted == plain);
    }

    #[test]
    fn a_disk_is_as_in_the_reference_however_requests_are_cut(
        kernel in available_kernels(), lineage_bytes in any::<[u8; 32]>(), seed in any::<u64>(), count in 2..150usize, before in 0..160u64,
        cuts in vec(0..150usize, 0..5),
    ) {
        let lineage = LineageKey::new_with(|key| *key = lineage_bytes).unwrap();
        let capacity = Capacity::new(ByteLen(2 << 40)).unwrap();
        let disk = DiskCipher::derive_for(kernel, &lineage, capacity).unwrap();
        let first = SEGMENT_SECTORS - before;
        let plain = bytes(seed, count * SECTOR_BYTES);
        let mut whole = vec![0; plain.len()];
        disk.encrypt(Sector(first), [plain[..].into()], &mut whole).unwrap();
        let mut expected = plain.clone();
        let boundary = (before as usize).min(count) * SECTOR_BYTES;
        let (under_first, under_second) = expected.split_at_mut(boundary);
        for (segment, start, part) in [(0, first, under_first), (1, SEGMENT_SECTORS, under_second)] {
            let key = segment_key(&lineage_bytes, segment);
            reference(&key).encrypt_area(part, SECTOR_BYTES, start.into(), get_tweak_default);
        }
        prop_assert!(whole == expected);

        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % count).chain([0, count]).collect();
        cuts.sort_unstable();
        let mut parts = plain.clone();
        let mut back = vec![0; plain.len()];
        for ends in cuts.windows(2) {
            let range = ends[0] * SECTOR_BYTES..ends[1] * SECTOR_BYTES;
            let sector = Sector(first + ends[0] as u64);
            disk.encrypt_in_place(sector, &mut parts[range.clone()]).unwrap();
            disk.decrypt(sector, &whole[range.clone()], [(&mut back[range]).into()]).unwrap();
        }
        prop_assert!(parts == whole);
        prop_assert!(back == plain);
        disk.decrypt_in_place(Sector(first), &mut parts).unwrap();
        prop_assert!(parts == plain);
    }
}
