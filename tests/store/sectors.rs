//! What stands for ciphertext: sectors that say which write they are from.

pub(crate) const SECTOR: usize = 512;

/// Number of a write; 0: zeros, written by nobody.
pub(crate) type Value = u32;

/// What could be neither read as zeros nor written by a test.
pub(crate) const GARBAGE: Value = Value::MAX;

/// Found where a sector could not be read.
pub(crate) const UNREAD: Value = Value::MAX - 1;

/// "Enciphers" what write `value` puts into `sector`. Zeros do not look like zeros then, as with a cipher.
pub(crate) fn seal(value: Value, sector: u64, bytes: &mut [u8]) {
    let word = u128::from(sector) | u128::from(value) << 64 | 0xa5 << 120;
    for chunk in bytes.as_chunks_mut::<16>().0 {
        *chunk = word.to_le_bytes();
    }
}

/// Which write `sector` is from.
pub(crate) fn open(sector: u64, bytes: &[u8]) -> Value {
    let chunks = bytes.as_chunks::<16>().0;
    let word = u128::from_le_bytes(chunks[0]);
    let whole = chunks.iter().all(|chunk| *chunk == chunks[0]);
    let ours = word as u64 == sector && word >> 120 == 0xa5 && word >> 96 & 0x00ff_ffff == 0;
    if whole && ours {
        (word >> 64) as u32
    } else {
        GARBAGE
    }
}

/// Whether these are sectors of a disk, and not metadata.
pub(crate) fn is_data(bytes: &[u8]) -> bool {
    let chunks = bytes.as_chunks::<16>().0;
    chunks.len() > 1 && chunks[0] == chunks[1] && chunks[0][15] == 0xa5
}
