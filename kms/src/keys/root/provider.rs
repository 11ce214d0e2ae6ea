//! What a provider of a root key does, and what all of them have in common.

use std::path::{Path, PathBuf};

use sealblk_proto::keys::RootKey;

use crate::catalogue::root_key_kind::RootKeyKind;
use crate::error::{Code, Error, Result};
use crate::state::sync_directory;

/// A provider of a root key.
pub(crate) trait RootKeyProvider: Send + Sync {
    /// Which one it is.
    fn kind(&self) -> RootKeyKind;

    /// The file that [`RootKeyProvider::load`] reads.
    fn path(&self) -> PathBuf;

    /// The root key.
    ///
    /// # Errors
    /// That it is missing, no key, or open to others.
    fn load(&self) -> Result<RootKey>;

    /// The key that a rotation has begun to put in its place, if there is one.
    ///
    /// # Errors
    /// As [`RootKeyProvider::load`].
    fn staged(&self) -> Result<Option<RootKey>>;

    /// Makes the next key, durably and beside the present one, or finds the one of a rotation that did not get to its
    /// end.
    ///
    /// # Errors
    /// [`Code::NotSupported`] where somebody else has to put it there; the file system's.
    fn stage(&self) -> Result<RootKey>;

    /// Puts the next key in the place of the present one: the catalogue is under it. Can be repeated.
    ///
    /// # Errors
    /// The file system's.
    fn promote(&self) -> Result<()>;
}

/// The root key that `fits` the catalogue: the present one, or, if a rotation has put the catalogue under it and has not
/// ended, the next; then true.
///
/// # Errors
/// As [`RootKeyProvider::load`]; what `fits` says of the present key.
pub(crate) fn find(
    provider: &dyn RootKeyProvider,
    fits: impl Fn(&RootKey) -> Result<()>,
) -> Result<(RootKey, bool)> {
    let present = provider.load().and_then(|key| fits(&key).map(|()| key));
    let error = match present {
        Ok(present) => return Ok((present, false)),
        Err(error) => error,
    };
    match provider.staged() {
        Ok(Some(next)) if fits(&next).is_ok() => Ok((next, true)),
        Ok(_) => Err(error),
        Err(staged) => {
            log::error!(
                "the root key of a rotation that was interrupted cannot be used: {}",
                staged.full_message()
            );
            Err(error)
        }
    }
}

/// The root key that `fits` the catalogue; a rotation that was interrupted is ended.
///
/// # Errors
/// As [`find`]; those of [`RootKeyProvider::promote`].
pub(crate) fn find_and_promote(
    provider: &dyn RootKeyProvider,
    fits: impl Fn(&RootKey) -> Result<()>,
) -> Result<RootKey> {
    let (key, is_next) = find(provider, fits)?;
    if is_next {
        log::warn!("a rotation of the root key was interrupted: ending it");
        provider.promote()?;
    }
    Ok(key)
}

/// A new root key.
///
/// # Errors
/// [`Code::Internal`] without randomness or locked memory.
pub(super) fn generate() -> Result<RootKey> {
    RootKey::generate().map_err(|error| Error::because(Code::Internal, "the root key cannot be made", error))
}

/// Renames a staged file over the present one, durably.
pub(super) fn promote(staged: &Path, present: &Path) -> Result<()> {
    let renamed = match std::fs::rename(staged, present) {
        // An earlier attempt has renamed it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && present.exists() => Ok(()),
        renamed => renamed,
    };
    renamed
        .and_then(|()| present.parent().map_or(Ok(()), sync_directory))
        .map_err(|error| {
            Error::because(
                Code::StateUnusable,
                "the new root key cannot be put in its place",
                error,
            )
        })
}
