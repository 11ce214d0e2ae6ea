//! Key material on its way here (rule K10): wrapped for transport as PKCS #11's CKM_RSA_AES_KEY_WRAP does it.
//!
//! Blob = RSAES-OAEP(SHA-256, MGF1 with SHA-256, no label; RFC 8017, section 7.1) of a 256-bit AES key under our public
//! key, 384 bytes ‖ AES-KWP (NIST SP 800-38F, section 6.3) of the material under that AES key, 40 bytes. RSA has 3072
//! bits: 128 bits of strength (SP 800-57, part 1, table 2). Each pair opens one blob and is gone, so that a timing of
//! RSA tells nothing that is of use later.

use std::io;

use aes_kw::{KeyInit, KwpAes256};
use rsa::PrivateKey;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use sealblk_proto::keys::{KEY_BYTES, MasterKey};
use sealblk_proto::locked::{Locked, wipe_dead_stack};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Length of the modulus.
const RSA_BITS: usize = 3072;
const RSA_BYTES: usize = RSA_BITS / 8;
/// Length of wrapped material: SP 800-38F adds a semiblock.
const WRAPPED_BYTES: usize = KEY_BYTES + 8;

/// Room for the pair's PKCS #8 document, which has some 1,800 bytes.
const DOCUMENT_BYTES: usize = 2048;

/// A pair for one import. It may wait for long, so it lies in locked memory; the library has it on the heap, and wipes it,
/// only while it is made and while it opens a blob.
pub(crate) struct TransportKey {
    /// PKCS #8 (RFC 5208, section 5), in DER.
    document: Locked<[u8; DOCUMENT_BYTES]>,
    length: usize,
    public_pem: String,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error(
        "{0} bytes: what is imported has {expected} bytes, RSA-OAEP of a 256-bit AES key and AES-KWP of a 256-bit key under it",
        expected = RSA_BYTES + WRAPPED_BYTES
    )]
    Length(usize),
    /// Which of them cannot be told.
    #[error("it does not open: wrapped for other parameters, in another way, or damaged")]
    Invalid,
    #[error("no key pair can be made")]
    Generation(#[source] rsa::Error),
    #[error("the key pair cannot be written or read")]
    Encoding(#[source] rsa::pkcs8::Error),
    #[error("the operating system refused locked memory")]
    System(#[from] io::Error),
}

impl TransportKey {
    /// Makes a pair. It takes a second or so.
    ///
    /// # Errors
    /// [`TransportError::Generation`].
    pub(crate) fn generate() -> Result<Self, TransportError> {
        let pair = PrivateKey::new(&mut getrandom::SysRng, RSA_BITS);
        Self::of(&pair.map_err(TransportError::Generation)?)
    }

    fn of(pair: &PrivateKey) -> Result<Self, TransportError> {
        let public_pem = pair.to_public_key().to_public_key_pem(LineEnding::LF);
        let written = pair.to_pkcs8_der().map_err(TransportError::Encoding)?;
        let mut document = Locked::<[u8; DOCUMENT_BYTES]>::zeroed()?;
        let length = written.as_bytes().len();
        document[..length].copy_from_slice(written.as_bytes());
        wipe_dead_stack();
        Ok(TransportKey {
            document,
            length,
            public_pem: public_pem.map_err(|error| TransportError::Encoding(error.into()))?,
        })
    }

    /// The public key, as a PEM `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7).
    pub(crate) fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// Opens a blob.
    ///
    /// # Errors
    /// [`TransportError`].
    pub(crate) fn open(self, blob: &[u8]) -> Result<MasterKey, TransportError> {
        if blob.len() != RSA_BYTES + WRAPPED_BYTES {
            return Err(TransportError::Length(blob.len()));
        }
        let (sealed, wrapped) = blob.split_at(RSA_BYTES);
        let opened = self.open_parts(sealed, wrapped);
        wipe_dead_stack();
        opened
    }

    fn open_parts(&self, sealed: &[u8], wrapped: &[u8]) -> Result<MasterKey, TransportError> {
        let pair = PrivateKey::from_pkcs8_der(&self.document[..self.length]);
        let pair = pair.map_err(TransportError::Encoding)?;
        let wrapping = pair.oaep_decrypt::<Sha256>(sealed).map(Zeroizing::new);
        let wrapping = wrapping.map_err(|_| TransportError::Invalid)?;
        let wrapping =
            <&[u8; KEY_BYTES]>::try_from(wrapping.as_slice()).map_err(|_| TransportError::Invalid)?;
        let cipher = Locked::new_with(|| KwpAes256::new(wrapping.into()))?;
        MasterKey::try_new_with(|key| match cipher.unwrap_key(wrapped, key) {
            Ok(opened) if opened.len() == KEY_BYTES => Ok(()),
            _ => Err(TransportError::Invalid),
        })
    }
}

/// A pair that is no secret.
#[cfg(any(test, fuzzing))]
pub(crate) fn known_pair() -> TransportKey {
    TransportKey::of(&known_private_key()).expect("locked memory")
}

#[cfg(any(test, fuzzing))]
fn known_private_key() -> PrivateKey {
    PrivateKey::from_pkcs8_pem(include_str!("testdata/import.pem")).expect("a key that OpenSSL has made")
}

/// The first part of a blob for the [known pair](known_pair).
#[cfg(any(test, fuzzing))]
pub(super) fn seal_for_known_pair(wrapping: &[u8]) -> Vec<u8> {
    let public = known_private_key().to_public_key();
    public
        .oaep_encrypt::<Sha256>(wrapping)
        .expect("no more bytes than there is room for")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with OpenSSL 3.0: `pkeyutl -encrypt … rsa_padding_mode:oaep rsa_oaep_md:sha256 rsa_mgf1_md:sha256` of
    /// 00..1f, and `enc -id-aes256-wrap-pad -iv A65959A6` of a0..bf under it.
    const BLOB: &[u8] = include_bytes!("testdata/import.blob");

    #[test]
    fn rule_k10_what_openssl_wraps_is_opened() {
        let key = known_pair().open(BLOB).unwrap();
        let expected: [u8; KEY_BYTES] = std::array::from_fn(|index| 0xa0 + index as u8);
        assert_eq!(key.expose(), &expected);
    }

    #[test]
    fn rule_k10_a_changed_or_foreign_blob_is_refused() {
        for index in [0, RSA_BYTES - 1, RSA_BYTES, BLOB.len() - 1] {
            let mut changed = BLOB.to_vec();
            changed[index] ^= 1;
            assert!(
                matches!(known_pair().open(&changed), Err(TransportError::Invalid)),
                "{index}"
            );
        }
        for length in [0, RSA_BYTES, BLOB.len() - 1] {
            assert!(matches!(
                known_pair().open(&BLOB[..length]),
                Err(TransportError::Length(_))
            ));
        }
        let other = TransportKey::generate().unwrap();
        assert!(other.public_pem().starts_with("-----BEGIN PUBLIC KEY-----"));
        assert!(matches!(other.open(BLOB), Err(TransportError::Invalid)));
    }
}
