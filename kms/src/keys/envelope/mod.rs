//! Key wrapping: AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce, bound to the place of the key.
//!
//! The root key wraps versions of master keys; a version of a master key wraps data keys and lineage salts. The
//! types permit nothing else, and what is not wrapped cannot be stored. A blob is 61 bytes:
//! format version (1) ‖ nonce (12) ‖ ciphertext (32) ‖ tag (16). Moved to another row, or changed in one bit, it
//! fails to open.

pub(crate) mod binding;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod lineage;
#[cfg(test)]
mod tests;
pub(crate) mod transport;

use std::io;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use sealblk_proto::keys::{DataKey, KEY_BYTES, MasterKey, RootKey};
use sealblk_proto::locked::{Locked, wipe_dead_stack};

use binding::FORMAT_VERSION;
pub(crate) use binding::{ObjectType, Place};
pub(crate) use lineage::{LineageSalt, derive_lineage_key};
#[cfg(test)]
pub(crate) use transport::known_pair as transport_pair;
pub(crate) use transport::{TransportError, TransportKey};

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Length of every blob.
const BLOB_BYTES: usize = 1 + NONCE_BYTES + KEY_BYTES + TAG_BYTES;
/// What [`ObjectType::RootKeyCheck`] wraps: it only has to be known.
const CHECK_OBJECT: [u8; KEY_BYTES] = *b"sealblk: this root key fits (v1)";

/// A key under another key: the only form in which keys are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrappedKey([u8; BLOB_BYTES]);

/// Why a key was not wrapped or unwrapped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvelopeError {
    /// Damaged, forged, of another place, or under another key: which of them cannot be told.
    #[error("the wrapped key is damaged, or it belongs to another place or another wrapping key")]
    Invalid,
    /// Written by a newer version.
    #[error("the wrapped key has format version {0}, and this program knows version {FORMAT_VERSION} only")]
    UnknownVersion(u8),
    /// No randomness, or memory that cannot be locked.
    #[error("the operating system refused randomness or locked memory")]
    System(#[from] io::Error),
}

impl WrappedKey {
    /// Reads what the catalogue holds.
    ///
    /// # Errors
    /// [`EnvelopeError::Invalid`] for another length, [`EnvelopeError::UnknownVersion`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let blob: [u8; BLOB_BYTES] = bytes.try_into().map_err(|_| EnvelopeError::Invalid)?;
        match blob[0] {
            FORMAT_VERSION => Ok(WrappedKey(blob)),
            other => Err(EnvelopeError::UnknownVersion(other)),
        }
    }

    /// For the catalogue.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Wraps the known object of a catalogue, so that [`check_root_key`] can tell a foreign root key.
pub(crate) fn wrap_root_key_check(root: &RootKey, place: &Place<'_>) -> Result<WrappedKey, EnvelopeError> {
    wrap_known(root, ObjectType::RootKeyCheck, place)
}

/// Seals the statement that the place has: the known object, bound to it, which nobody can make who has not the root key.
pub(crate) fn seal_statement(root: &RootKey, place: &Place<'_>) -> Result<WrappedKey, EnvelopeError> {
    wrap_known(root, ObjectType::Statement, place)
}

fn wrap_known(root: &RootKey, object: ObjectType, place: &Place<'_>) -> Result<WrappedKey, EnvelopeError> {
    seal(root.expose(), &CHECK_OBJECT, &place.encode(object))
}

/// Whether `root` is the root key of the catalogue that `check` is from.
///
/// # Errors
/// [`EnvelopeError::Invalid`] if it is not.
pub(crate) fn check_root_key(
    root: &RootKey,
    check: &WrappedKey,
    place: &Place<'_>,
) -> Result<(), EnvelopeError> {
    open_known(root, check, ObjectType::RootKeyCheck, place)
}

/// Whether the statement that the place has was sealed under `root`.
///
/// # Errors
/// [`EnvelopeError::Invalid`] if it was not.
pub(crate) fn check_statement(
    root: &RootKey,
    sealed: &WrappedKey,
    place: &Place<'_>,
) -> Result<(), EnvelopeError> {
    open_known(root, sealed, ObjectType::Statement, place)
}

fn open_known(
    root: &RootKey,
    blob: &WrappedKey,
    object_type: ObjectType,
    place: &Place<'_>,
) -> Result<(), EnvelopeError> {
    let mut object = [0; KEY_BYTES];
    open(root.expose(), blob, &place.encode(object_type), &mut object)?;
    if object == CHECK_OBJECT {
        Ok(())
    } else {
        Err(EnvelopeError::Invalid)
    }
}

/// Wraps a root key under a passphrase's key, for a backup.
pub(crate) fn wrap_root_key(
    key: &RootKey,
    root: &RootKey,
    place: &Place<'_>,
) -> Result<WrappedKey, EnvelopeError> {
    seal(key.expose(), root.expose(), &place.encode(ObjectType::RootKey))
}

/// Opens a root key of a backup.
pub(crate) fn unwrap_root_key(
    key: &RootKey,
    blob: &WrappedKey,
    place: &Place<'_>,
) -> Result<RootKey, EnvelopeError> {
    RootKey::try_new_with(|root| open(key.expose(), blob, &place.encode(ObjectType::RootKey), root))
}

/// Wraps a version of a master key under the root key.
pub(crate) fn wrap_master_key(
    root: &RootKey,
    key: &MasterKey,
    place: &Place<'_>,
) -> Result<WrappedKey, EnvelopeError> {
    seal(root.expose(), key.expose(), &place.encode(ObjectType::MasterKey))
}

/// Opens a version of a master key.
pub(crate) fn unwrap_master_key(
    root: &RootKey,
    blob: &WrappedKey,
    place: &Place<'_>,
) -> Result<MasterKey, EnvelopeError> {
    MasterKey::try_new_with(|key| open(root.expose(), blob, &place.encode(ObjectType::MasterKey), key))
}

/// Wraps a data key under a version of a master key.
pub(crate) fn wrap_data_key(
    master: &MasterKey,
    key: &DataKey,
    place: &Place<'_>,
) -> Result<WrappedKey, EnvelopeError> {
    seal(master.expose(), key.expose(), &place.encode(ObjectType::DataKey))
}

/// Opens a data key.
pub(crate) fn unwrap_data_key(
    master: &MasterKey,
    blob: &WrappedKey,
    place: &Place<'_>,
) -> Result<DataKey, EnvelopeError> {
    DataKey::try_new_with(|key| open(master.expose(), blob, &place.encode(ObjectType::DataKey), key))
}

/// Wraps the salt of a lineage under a version of a master key.
pub(crate) fn wrap_lineage_salt(
    master: &MasterKey,
    salt: &LineageSalt,
    place: &Place<'_>,
) -> Result<WrappedKey, EnvelopeError> {
    seal(
        master.expose(),
        salt.expose(),
        &place.encode(ObjectType::LineageSalt),
    )
}

/// Opens the salt of a lineage.
pub(crate) fn unwrap_lineage_salt(
    master: &MasterKey,
    blob: &WrappedKey,
    place: &Place<'_>,
) -> Result<LineageSalt, EnvelopeError> {
    LineageSalt::try_new_with(|salt| {
        open(
            master.expose(),
            blob,
            &place.encode(ObjectType::LineageSalt),
            salt,
        )
    })
}

fn cipher(key: &[u8; KEY_BYTES]) -> io::Result<Locked<Aes256Gcm>> {
    Locked::new_with(|| Aes256Gcm::new(key.into()))
}

fn seal(key: &[u8; KEY_BYTES], secret: &[u8; KEY_BYTES], aad: &[u8]) -> Result<WrappedKey, EnvelopeError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    seal_with_nonce(key, secret, aad, nonce)
}

/// SP 800-38D, section 8.2.2: the nonce must be random, which is why only [`seal`] and tests call this.
fn seal_with_nonce(
    key: &[u8; KEY_BYTES],
    secret: &[u8; KEY_BYTES],
    aad: &[u8],
    nonce: [u8; NONCE_BYTES],
) -> Result<WrappedKey, EnvelopeError> {
    // The secret is encrypted where it is wiped on every way out, not in the blob.
    let mut text = Locked::<[u8; KEY_BYTES]>::zeroed()?;
    text.copy_from_slice(secret);
    let tag = cipher(key)?
        .encrypt_inout_detached(&Nonce::from(nonce), aad, (&mut text[..]).into())
        .map_err(|_| EnvelopeError::Invalid)?;
    wipe_dead_stack();
    let mut blob = [0; BLOB_BYTES];
    blob[0] = FORMAT_VERSION;
    blob[1..=NONCE_BYTES].copy_from_slice(&nonce);
    blob[1 + NONCE_BYTES..BLOB_BYTES - TAG_BYTES].copy_from_slice(&text[..]);
    blob[BLOB_BYTES - TAG_BYTES..].copy_from_slice(&tag);
    Ok(WrappedKey(blob))
}

/// Opens into `secret`, which holds nothing but ciphertext unless this succeeds.
fn open(
    key: &[u8; KEY_BYTES],
    blob: &WrappedKey,
    aad: &[u8],
    secret: &mut [u8; KEY_BYTES],
) -> Result<(), EnvelopeError> {
    let (nonce, rest) = blob.0[1..].split_at(NONCE_BYTES);
    let (text, tag) = rest.split_at(KEY_BYTES);
    let nonce = Nonce::try_from(nonce).map_err(|_| EnvelopeError::Invalid)?;
    let tag = Tag::try_from(tag).map_err(|_| EnvelopeError::Invalid)?;
    secret.copy_from_slice(text);
    let opened = cipher(key)?.decrypt_inout_detached(&nonce, aad, (&mut secret[..]).into(), &tag);
    wipe_dead_stack();
    opened.map_err(|_| EnvelopeError::Invalid)
}
