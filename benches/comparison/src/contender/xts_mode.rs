//! The crate `xts-mode` over the crate `aes`, block by block. It works in place, so the data are copied first.

use aes::Aes256;
use aes::cipher::KeyInit;
use sealblk::crypto::{Direction, KEY_BYTES};
use sealblk::units::{SECTOR_BYTES, Sector};
use xts_mode::{Xts128, get_tweak_default};

use super::Contender;

pub(super) struct XtsMode(Xts128<Aes256>);

impl XtsMode {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        let (data, tweak) = key.split_at(KEY_BYTES / 2);
        let [data, tweak] = [data, tweak].map(|half| Aes256::new_from_slice(half).expect("32 bytes"));
        XtsMode(Xts128::new(data, tweak))
    }
}

impl Contender for XtsMode {
    fn name(&self) -> String {
        "xts-mode".to_owned()
    }

    fn process(&mut self, direction: Direction, first: Sector, input: &[u8], output: &mut [u8]) {
        output.copy_from_slice(input);
        let first = u128::from(first.0);
        match direction {
            Direction::Encrypt => self
                .0
                .encrypt_area(output, SECTOR_BYTES, first, get_tweak_default),
            Direction::Decrypt => self
                .0
                .decrypt_area(output, SECTOR_BYTES, first, get_tweak_default),
        }
    }
}
