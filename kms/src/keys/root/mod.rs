//! Where the root key (KEK) of a state directory comes from.
//!
//! Loading it is all that a provider does, and, for a rotation, keeping the next one beside it until the catalogue is
//! under that; `envelope` wraps under it. A provider from which the key cannot leave, such as a token, would wrap by itself
//! instead: the keyring is the only one that asks for the key.

pub(crate) mod credential;
pub(crate) mod file;
pub(crate) mod passphrase;
pub(crate) mod provider;

use std::path::Path;
use std::sync::Arc;

pub(crate) use credential::Credential;
pub(crate) use file::{KeyFile, RootKeyError, load, store};
pub(crate) use passphrase::SealedFile;
pub(crate) use provider::{RootKeyProvider, find, find_and_promote};

use crate::catalogue::meta::Meta;
use crate::catalogue::root_key_kind::RootKeyKind;
use crate::error::Result;
use crate::keys::passphrase::Passphrase;
use crate::state::StateDir;

/// The provider that the catalogue names; the passphrase, if it needs one, is read from the file or asked for on the
/// terminal.
///
/// # Errors
/// `RootKeyMissing` and the like; those of the passphrase.
pub(crate) fn provider_of(
    state: &StateDir,
    meta: &Meta,
    passphrase_file: Option<&Path>,
) -> Result<Arc<dyn RootKeyProvider>> {
    Ok(match meta.root_key {
        RootKeyKind::File => Arc::new(KeyFile::new(state.root_key())),
        RootKeyKind::Credential => Arc::new(Credential::from_environment()?),
        RootKeyKind::Passphrase => {
            let passphrase = Passphrase::obtain(passphrase_file, false)?;
            Arc::new(SealedFile::open(state.sealed_root_key(), meta, &passphrase)?)
        }
    })
}
