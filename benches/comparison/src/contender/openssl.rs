//! OpenSSL by its EVP interface, as its users have it: the key is expanded once, each data unit is a call for the tweak and one
//! for the data.

use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtx;
use sealblk::crypto::{Direction, KEY_BYTES};
use sealblk::units::{SECTOR_BYTES, Sector};

use super::{Contender, tweak};

pub(super) struct OpenSsl {
    encrypting: CipherCtx,
    decrypting: CipherCtx,
}

impl OpenSsl {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        let cipher = Some(Cipher::aes_256_xts());
        let context = || CipherCtx::new().expect("memory");
        let (mut encrypting, mut decrypting) = (context(), context());
        let expanded = encrypting
            .encrypt_init(cipher, Some(key), Some(&tweak(0)))
            .and_then(|()| decrypting.decrypt_init(cipher, Some(key), Some(&tweak(0))));
        expanded.expect("a key of the right length");
        OpenSsl {
            encrypting,
            decrypting,
        }
    }
}

impl Contender for OpenSsl {
    fn name(&self) -> String {
        let version = openssl::version::version();
        let number = version.split_whitespace().nth(1).unwrap_or("of unknown version");
        format!("OpenSSL {number}")
    }

    fn process(&mut self, direction: Direction, first: Sector, input: &[u8], output: &mut [u8]) {
        let units = input
            .chunks_exact(SECTOR_BYTES)
            .zip(output.chunks_exact_mut(SECTOR_BYTES));
        for ((input, output), sector) in units.zip(first.0..) {
            let tweak = tweak(sector);
            let processed = match direction {
                Direction::Encrypt => {
                    let context = &mut self.encrypting;
                    let begun = context.encrypt_init(None, None, Some(&tweak));
                    begun.and_then(|()| context.cipher_update(input, Some(output)))
                }
                Direction::Decrypt => {
                    let context = &mut self.decrypting;
                    let begun = context.decrypt_init(None, None, Some(&tweak));
                    begun.and_then(|()| context.cipher_update(input, Some(output)))
                }
            };
            assert!(
                processed.is_ok_and(|length| length == SECTOR_BYTES),
                "OpenSSL refused"
            );
        }
    }
}
