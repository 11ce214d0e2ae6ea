use super::*;
use crate::units::ByteLen;

const TIB: u64 = 1 << 40;

fn lineage(first_byte: u8) -> LineageKey {
    LineageKey::new_with(|key| *key = std::array::from_fn(|i| first_byte.wrapping_add(i as u8))).unwrap()
}

fn cipher(bytes: u64) -> DiskCipher {
    DiskCipher::derive(&lineage(0), Capacity::new(ByteLen(bytes)).unwrap()).unwrap()
}

/// What one segment's key alone makes of the data.
fn by_segment(segment: u64, first: u64, data: &[u8]) -> Vec<u8> {
    let mut key = [0; KEY_BYTES];
    derive::segment_key(&lineage(0), segment, &mut key);
    let mut data = data.to_vec();
    let keys = XtsAes256::new(&key).unwrap();
    keys.process_sectors(Direction::Encrypt, Sector(first), data.as_mut_slice().into())
        .unwrap();
    data
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i ^ (i >> 8)) as u8).collect()
}

#[test]
fn a_range_across_a_segment_boundary_changes_keys_there_and_keeps_counting() {
    let cipher = cipher(2 * TIB);
    let plain = pattern(7 * SECTOR_BYTES);
    let first = SEGMENT_SECTORS - 3;
    let mut expected = by_segment(0, first, &plain[..3 * SECTOR_BYTES]);
    expected.extend(by_segment(1, SEGMENT_SECTORS, &plain[3 * SECTOR_BYTES..]));
    let mut out = vec![0; plain.len()];
    cipher
        .encrypt(Sector(first), [plain[..].into()], &mut out)
        .unwrap();
    assert!(out == expected);
    cipher.decrypt_in_place(Sector(first), &mut out).unwrap();
    assert!(out == plain);
}

#[test]
fn in_place_and_out_of_place_agree() {
    let cipher = cipher(TIB);
    let plain = pattern(100 * SECTOR_BYTES);
    let mut out = vec![0; plain.len()];
    cipher.encrypt(Sector(77), [plain[..].into()], &mut out).unwrap();
    let mut in_place = plain.clone();
    cipher.encrypt_in_place(Sector(77), &mut in_place).unwrap();
    assert!(in_place == out);
    assert!(in_place == by_segment(0, 77, &plain));
    let mut back = vec![0; plain.len()];
    cipher
        .decrypt(Sector(77), &out, [back[..].as_mut().into()])
        .unwrap();
    assert!(back == plain);
}

#[test]
fn segments_and_lineages_have_keys_of_their_own() {
    let mut keys = std::collections::HashSet::new();
    for first_byte in [0, 1] {
        for segment in 0..64 {
            let mut key = [0; KEY_BYTES];
            derive::segment_key(&lineage(first_byte), segment, &mut key);
            assert!(keys.insert(key), "segment {segment}");
        }
    }
}

#[test]
fn a_disk_has_keys_for_each_segment_it_touches() {
    for (bytes, segments) in [(512, 1), (TIB, 1), (TIB + 512, 2), (64 * TIB, 64)] {
        assert_eq!(cipher(bytes).segments.len(), segments, "{bytes} bytes");
    }
}

#[test]
fn ranges_without_a_key_are_refused_and_nothing_is_written() {
    let cipher = cipher(TIB + 512);
    let end = 2 * SEGMENT_SECTORS;
    let mut data = [9; 2 * SECTOR_BYTES];
    for sector in [end, end - 1, u64::MAX, u64::MAX - 1] {
        let refused = cipher.encrypt_in_place(Sector(sector), &mut data);
        assert!(matches!(refused, Err(CryptoError::NoKey { first, count: 2 }) if first == sector));
    }
    assert_eq!(data, [9; 2 * SECTOR_BYTES]);
    cipher.encrypt_in_place(Sector(end - 2), &mut data).unwrap();
    cipher.encrypt_in_place(Sector(end), &mut []).unwrap();
}

#[test]
fn odd_lengths_and_too_little_memory_are_refused() {
    let cipher = cipher(512);
    for length in [1, 511, 513] {
        let refused = cipher.decrypt_in_place(Sector(0), &mut vec![0; length]);
        assert!(matches!(refused, Err(CryptoError::Xts(XtsError::NotWholeSectors(of))) if of == length));
    }
    let half: &[u8] = &[0; 256];
    for pieces in [0, 1] {
        let pieces = std::iter::repeat_n(half, pieces);
        let refused = cipher.encrypt(Sector(0), pieces.map(Source::from), &mut [0; 512]);
        assert!(matches!(refused, Err(CryptoError::TooLittleMemory(512))));
    }
    let mut memory = [0; 511];
    let refused = cipher.decrypt(Sector(0), &[0; 512], [memory.as_mut_slice().into()]);
    assert!(matches!(refused, Err(CryptoError::TooLittleMemory(512))));
    // No more than what is asked for is taken.
    let halves = [half, half, half].map(Source::from);
    cipher.encrypt(Sector(0), halves, &mut [0; 512]).unwrap();
}

#[test]
fn without_a_cipher_pieces_are_copied() {
    let bytes = pattern(2000);
    let (front, back) = bytes.split_at(777);
    let mut gathered = vec![0; 1999];
    gather([front.into(), [].as_slice().into(), back.into()], &mut gathered).unwrap();
    assert_eq!(gathered, bytes[..1999]);
    let mut memory = vec![7; 2010];
    let (front, back) = memory.split_at_mut(1024);
    scatter(&bytes, [front.into(), back.into()]).unwrap();
    assert!(memory[..2000] == bytes && memory[2000..] == [7; 10]);
    assert!(matches!(
        gather([bytes[..5].into()], &mut [0; 6]),
        Err(CryptoError::TooLittleMemory(6))
    ));
    let mut memory = [0; 5];
    assert!(matches!(
        scatter(&[0; 6], [memory.as_mut_slice().into()]),
        Err(CryptoError::TooLittleMemory(6))
    ));
}
