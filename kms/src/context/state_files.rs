//! Whether the catalogue and the root key are still what the daemon has opened and read.
//!
//! A change that is made while they are not would be lost with the next start, or be under a root key that is nowhere.

use crate::catalogue::{Write, meta};
use crate::conditions::Condition;
use crate::context::Kms;
use crate::context::root_file::Stamp;
use crate::error::{Code, Error, Result};
use crate::keys::keyring::Keyring;
use crate::keys::root;

/// Looks at both; what is wrong is shown as long as it lasts.
pub(crate) async fn look(kms: &Kms) {
    let catalogue = kms.catalogue.check_files().map_err(Error::from);
    show(kms, Condition::CatalogueReplaced, catalogue.as_ref().err());
    // Shown by itself.
    let _ = check_root(kms).await;
}

/// Begins a change.
///
/// # Errors
/// [`Code::StateReplaced`]; the catalogue's.
pub(crate) async fn begin(kms: &Kms) -> Result<Write> {
    let tx = kms.catalogue.write().await.map_err(Error::from);
    match &tx {
        // Any other error says nothing of the files.
        Err(error) if error.code() != Code::StateReplaced => {}
        tx => show(kms, Condition::CatalogueReplaced, tx.as_ref().err()),
    }
    tx
}

/// Whether a start would find the root key.
///
/// # Errors
/// [`Code::StateReplaced`].
pub(crate) async fn check_root(kms: &Kms) -> Result<()> {
    let found = find_root(kms).await;
    show(kms, Condition::RootKeyReplaced, found.as_ref().err());
    found
}

fn show(kms: &Kms, condition: Condition, error: Option<&Error>) {
    match error {
        Some(error) => kms.conditions.raise(condition, error.full_message()),
        None => kms.conditions.clear(condition),
    }
}

async fn find_root(kms: &Kms) -> Result<()> {
    // A rotation exchanges the root key.
    let Ok(_no_rotation) = kms.rotating_root.try_lock() else {
        return Ok(());
    };
    let (known, found) = (kms.root_file.get(), kms.root_file.stamp());
    if found.is_some() && known == found {
        kms.conditions.clear(Condition::RootKeyPermissions);
        return Ok(());
    }
    let meta = meta::load(&mut *kms.catalogue.read().await?).await?;
    let error = match root::find(&*kms.root_provider, |root| Keyring::check(root, &meta)) {
        Ok(_) => {
            kms.root_file.set(found);
            kms.conditions.clear(Condition::RootKeyPermissions);
            return Ok(());
        }
        Err(error) => error,
    };
    let is_same = known.zip(found).is_some_and(|(known, found)| {
        let Stamp { mode, owner, .. } = known;
        Stamp { mode, owner, ..found } == known
    });
    if error.code() == Code::RootKeyPermissions && is_same {
        let text = error.full_message();
        kms.conditions.raise(Condition::RootKeyPermissions, text);
        return Ok(());
    }
    let text = "the root key was removed, or is another one: nothing is changed any more. Put the right one back; a key file is \
                also made anew by `sealctl kms rotate-root`";
    Err(Error::because(Code::StateReplaced, text, error))
}
