//! Key material on its way here (rule K10): wrapped for transport as PKCS #11's CKM_RSA_AES_KEY_WRAP does it.
//!
//! Blob = RSAES-OAEP(SHA-256, MGF1 with SHA-256, no label; RFC 8017, section 7.1) of a 256-bit AES key under our public
//! key, 384 bytes ‖ AES-KWP (NIST SP 800-38F, section 6.3) of the material under that AES key, 40 bytes. RSA has 3072
//! bits: 128 bits of strength (SP 800-57, part 1, table 2). AWS-LC does both, in a time that does not depend on the keys.

use std::io;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use pem_rfc7468::LineEnding;
use sealblk_proto::keys::{KEY_BYTES, MasterKey};
use sealblk_proto::locked::{Locked, wipe_dead_stack_of};

const RSA: KeySize = KeySize::Rsa3072;
const RSA_BYTES: usize = 384;
/// Length of wrapped material: SP 800-38F adds a semiblock.
const WRAPPED_BYTES: usize = KEY_BYTES + 8;

/// Room for the pair's PKCS #8 document, which has some 1,800 bytes.
const DOCUMENT_BYTES: usize = 2048;
/// What the library has its locals in: a table of powers has 44 KiB (AWS-LC, `MOD_EXP_CTIME_STORAGE_LEN`).
const LIBRARY_STACK_BYTES: usize = 128 * 1024;

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
    Generation(#[source] Unspecified),
    #[error("the key pair cannot be written")]
    Encoding(#[source] Unspecified),
    #[error("the key pair cannot be read")]
    Decoding(#[source] KeyRejected),
    #[error("the key pair cannot be used")]
    Unusable(#[source] Unspecified),
    #[error("the public key cannot be written")]
    Pem(#[source] pem_rfc7468::Error),
    #[error("the operating system refused locked memory")]
    System(#[from] io::Error),
}

impl TransportKey {
    /// Makes a pair. It takes some tenths of a second.
    ///
    /// # Errors
    /// [`TransportError::Generation`].
    pub(crate) fn generate() -> Result<Self, TransportError> {
        let made = PrivateDecryptingKey::generate(RSA)
            .map_err(TransportError::Generation)
            .and_then(|pair| Self::of(&pair));
        wipe_dead_stack_of::<LIBRARY_STACK_BYTES>();
        made
    }

    fn of(pair: &PrivateDecryptingKey) -> Result<Self, TransportError> {
        let public = pair.public_key().as_der().map_err(TransportError::Encoding)?;
        let public_pem = pem_rfc7468::encode_string("PUBLIC KEY", LineEnding::LF, public.as_ref());
        let written = pair.as_der().map_err(TransportError::Encoding)?;
        let written = written.as_ref();
        let mut document = Locked::<[u8; DOCUMENT_BYTES]>::zeroed()?;
        document[..written.len()].copy_from_slice(written);
        Ok(TransportKey {
            document,
            length: written.len(),
            public_pem: public_pem.map_err(TransportError::Pem)?,
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
        wipe_dead_stack_of::<LIBRARY_STACK_BYTES>();
        opened
    }

    fn open_parts(&self, sealed: &[u8], wrapped: &[u8]) -> Result<MasterKey, TransportError> {
        let pair = PrivateDecryptingKey::from_pkcs8(&self.document[..self.length]);
        let pair = pair.map_err(TransportError::Decoding)?;
        let invalid = |_: Unspecified| TransportError::Invalid;
        let mut room = Locked::<[u8; RSA_BYTES]>::zeroed()?;
        let pair = OaepPrivateDecryptingKey::new(pair).map_err(TransportError::Unusable)?;
        let wrapping = pair.decrypt(&OAEP_SHA256_MGF1SHA256, sealed, &mut room[..], None);
        // Of any other length than a key's, it is none.
        let cipher = AesKek::new(&AES_256, wrapping.map_err(invalid)?).map_err(invalid)?;
        MasterKey::try_new_with(|key| match cipher.unwrap_with_padding(wrapped, key) {
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
fn known_private_key() -> PrivateDecryptingKey {
    let (_, document) = pem_rfc7468::decode_vec(include_bytes!("testdata/import.pem")).expect("PEM");
    PrivateDecryptingKey::from_pkcs8(&document).expect("a key that OpenSSL has made")
}

/// The first part of a blob for the [known pair](known_pair).
#[cfg(any(test, fuzzing))]
pub(super) fn seal_for_known_pair(wrapping: &[u8]) -> Vec<u8> {
    use aws_lc_rs::rsa::OaepPublicEncryptingKey;
    let public = OaepPublicEncryptingKey::new(known_private_key().public_key()).expect("a public key");
    let mut sealed = vec![0; RSA_BYTES];
    public
        .encrypt(&OAEP_SHA256_MGF1SHA256, wrapping, &mut sealed, None)
        .expect("no more bytes than there is room for");
    sealed
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

    /// Of NIST's CAVP; see the README beside them.
    const VECTORS: &str = include_str!("../../../../tests/vectors/nist-kwp/KWP_AD_256.txt");

    #[test]
    fn rule_k10_aes_kwp_opens_what_nist_has_wrapped_and_nothing_that_was_changed() {
        let field = |record: &str, name: &str| {
            let line = record.lines().find_map(|line| line.strip_prefix(name))?;
            hex::decode(line.trim_end()).ok()
        };
        let (mut opened, mut refused) = (0, 0);
        for record in VECTORS.split("COUNT = ").skip(1) {
            let cipher = AesKek::new(&AES_256, &field(record, "K = ").unwrap()).unwrap();
            let wrapped = field(record, "C = ").unwrap();
            let mut room = vec![0; wrapped.len() - 8];
            match cipher.unwrap_with_padding(&wrapped, &mut room) {
                Ok(plain) => {
                    assert_eq!(Some(plain), field(record, "P = ").as_deref_mut(), "{record}");
                    opened += 1;
                }
                Err(_) => {
                    assert!(record.contains("FAIL"), "{record}");
                    refused += 1;
                }
            }
        }
        assert_eq!((opened, refused), (400, 100));
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
