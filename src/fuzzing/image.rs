//! A qcow2 image that somebody has made for us to import.

use std::os::unix::fs::FileExt;

use sealblk_proto::qcow2::{HEADER_BYTES, Header};

use super::descriptors::memory;
use super::input::Input;
use crate::copy::Image;
use crate::store::RawStore;
use crate::units::SECTOR_BYTES;

/// How far zeros are looked for at a time.
const LOOK_AHEAD: u64 = 64 << 20;
const PIECE: usize = 64 << 10;

/// One image: its length in sectors, its header, and what lies where; then from where it is read.
pub fn image(data: &[u8]) {
    let mut input = Input::new(data);
    let file = memory(u64::from(input.word() >> 4) * SECTOR_BYTES as u64);
    let header = input.bytes(HEADER_BYTES);
    file.write_all_at(header, 0).expect("memory");
    for _ in 0..input.byte() {
        let at = u64::from(input.word() >> 4) * 8;
        file.write_all_at(input.counted(), at).expect("memory");
    }
    let Ok(header) = Header::parse(header) else { return };
    let Some(size) = header.size.checked_next_multiple_of(SECTOR_BYTES as u64) else {
        return;
    };
    let file = RawStore::foreign(file).expect("a file in memory is one to copy from");
    let Ok(image) = Image::open(file, size) else {
        return;
    };
    let last = size.saturating_sub(PIECE as u64);
    for offset in [0, size / 2, last] {
        look(&image, offset, size);
    }
    while !input.is_empty() {
        // Anywhere in a disk of any size.
        let at = (u128::from(input.word()) * u128::from(size)) >> 32;
        look(
            &image,
            at as u64 / SECTOR_BYTES as u64 * SECTOR_BYTES as u64,
            size,
        );
    }
}

/// What is said to be zeros is zeros, and reading again gives the same.
fn look(image: &Image, offset: u64, size: u64) {
    let [mut piece, mut again] = [vec![1; PIECE], vec![2; PIECE]];
    let zeros = image.zeros(offset, LOOK_AHEAD.min(size - offset));
    if image.read(offset, &mut piece).is_err() {
        return;
    }
    assert!(
        image.read(offset, &mut again).is_ok() && piece == again,
        "it reads the same again"
    );
    let zeros = zeros.map_or(0, |zeros| zeros.min(PIECE as u64) as usize);
    assert!(
        piece[..zeros].iter().all(|byte| *byte == 0),
        "what is called zeros is zeros"
    );
}
