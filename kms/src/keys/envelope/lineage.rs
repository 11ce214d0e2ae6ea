//! From a data key to the key of one lineage: HKDF-SHA-256 (RFC 5869).

use std::io;

use hkdf::Hkdf;
use sealblk_proto::keys::{DataKey, KEY_BYTES, LineageKey};
use sealblk_proto::locked::{Locked, wipe_dead_stack};
use sha2::Sha256;

const INFO: &[u8] = b"sealblk lineage v1";

/// 32 random bytes of a lineage. Without them its key cannot be derived, so they are kept like a key.
pub(crate) struct LineageSalt(Locked<[u8; KEY_BYTES]>);

impl LineageSalt {
    /// 256 bits from the operating system's generator.
    pub(crate) fn generate() -> io::Result<Self> {
        Self::try_new_with(|bytes| getrandom::fill(bytes).map_err(io::Error::other))
    }

    pub(super) fn try_new_with<E: From<io::Error>>(
        fill: impl FnOnce(&mut [u8; KEY_BYTES]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut bytes = Locked::zeroed()?;
        fill(&mut bytes)?;
        Ok(LineageSalt(bytes))
    }

    pub(super) fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

/// Lineage key = HKDF-SHA-256(key material = data key, salt, info = "sealblk lineage v1"), 32 bytes.
///
/// # Errors
/// The kernel's, if memory cannot be locked.
pub(crate) fn derive_lineage_key(key: &DataKey, salt: &LineageSalt) -> io::Result<LineageKey> {
    let derived = LineageKey::try_new_with(|output| {
        let hkdf = Hkdf::<Sha256>::new(Some(salt.expose()), key.expose());
        // 32 bytes are within what HKDF can give.
        hkdf.expand(INFO, output).map_err(io::Error::other)
    });
    wipe_dead_stack();
    derived
}
