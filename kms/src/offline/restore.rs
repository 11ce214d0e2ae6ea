//! `sealblk-kms restore`.
//!
//! What was not ended when the backup was taken is ended in the copy alone: no file of a disk is made, changed or
//! removed, for the files that lie around now may be those of a later time.

use std::fs::File;
use std::path::Path;

use sealblk_proto::keys::RootKey;

use crate::audit::{self, Decision};
use crate::catalogue::backup_file::{self, WrappedRoot};
use crate::catalogue::database_file::remove_database;
use crate::catalogue::intents;
use crate::catalogue::meta::{self, Meta};
use crate::catalogue::root_key_kind::RootKeyKind;
use crate::catalogue::states::DiskState;
use crate::catalogue::{Catalogue, Write, bin, clock, copies, disks, services, volumes};
use crate::console::say;
use crate::error::{Code, Error, Result};
use crate::intents::restored;
use crate::keys::envelope::{self, EnvelopeError, WrappedKey};
use crate::keys::keyring::Keyring;
use crate::keys::passphrase::{Cost, Passphrase};
use crate::keys::root::{self, RootKeyError};
use crate::offline::backup::{record, root_place};
use crate::offline::init::name_database;
use crate::state::StateDir;

/// Makes a state directory from a backup. It can be repeated after it was stopped.
///
/// # Errors
/// [`Code::StateExists`] if the directory is not empty, [`Code::BackupInvalid`], [`Code::WrongPassphrase`],
/// [`Code::RootKeyMismatch`] if there is another catalogue's root key.
pub(crate) async fn restore(path: &Path, file: &Path, passphrase_file: Option<&Path>) -> Result<()> {
    let mut source = File::open(file).map_err(|error| cannot_be_copied(file, error))?;
    let (state, _lock) = StateDir::create(path)?;
    let had_root_key = state.root_key().exists();
    let restored = match copy(&mut source, &state) {
        Ok(()) => restore_copy(&state, passphrase_file).await,
        Err(error) => Err(cannot_be_copied(file, error)),
    };
    if restored.is_err() {
        undo(&state, had_root_key);
    }
    let restored = restored?;
    say(&format!(
        "{} is restored. The disks' data were not in the backup.",
        state.root().display()
    ));
    if restored.became_file {
        say(&format!(
            "Its root key is a key file now: {}.",
            state.root_key().display()
        ));
    }
    if !restored.has_root_key {
        say(&format!(
            "Before you serve, put the root key back in its place: {}.",
            restored.kind.place(&state)
        ));
    }
    Ok(())
}

fn cannot_be_copied(file: &Path, error: std::io::Error) -> Error {
    Error::because(
        Code::FileFailed,
        format!("{} cannot be copied", file.display()),
        error,
    )
}

fn copy(source: &mut File, state: &StateDir) -> std::io::Result<()> {
    let unfinished = state.unfinished_restore();
    remove_database(&unfinished)?;
    std::io::copy(source, &mut File::create_new(&unfinished)?).map(|_| ())
}

/// Leaves the directory as empty as it was.
fn undo(state: &StateDir, had_root_key: bool) {
    let _ = remove_database(&state.unfinished_restore());
    if !had_root_key {
        let _ = std::fs::remove_file(state.root_key());
    }
    let _ = std::fs::remove_file(state.root().join("lock"));
    for directory in [state.disks(), state.run()] {
        let _ = std::fs::remove_dir(directory);
    }
}

/// What has become of the root key.
struct Restored {
    /// Where it comes from.
    kind: RootKeyKind,
    has_root_key: bool,
    /// The root key came from elsewhere before, and out of the backup as a file.
    became_file: bool,
}

/// Checks the copy, takes the root key out of it, and gives it its name.
async fn restore_copy(state: &StateDir, passphrase_file: Option<&Path>) -> Result<Restored> {
    let invalid = |error| Error::because(Code::BackupInvalid, "it is no backup, or a damaged one", error);
    let unfinished = state.unfinished_restore();
    let catalogue = Catalogue::open(&unfinished).await.map_err(invalid)?;
    let meta = check(&catalogue).await?;
    let root = backup_file::take_root(&mut *catalogue.write_alone().await?).await?;
    if let Some(wrapped) = &root {
        put_root(state, &unwrap_root(wrapped, &meta, passphrase_file)?)?;
        // However it was kept before, it is a key file now.
        meta::set_root_key(&mut *catalogue.write_alone().await?, RootKeyKind::File).await?;
    }
    let kind = if root.is_some() {
        RootKeyKind::File
    } else {
        meta.root_key
    };
    let has_root_key = kind == RootKeyKind::File && has_key_file(state, &meta)?;
    record(&catalogue, "restore", &meta).await?;
    {
        let mut db = catalogue.write_alone().await?;
        volumes::forget_identities(&mut db).await?;
        services::hold_all(&mut db).await?;
        let seen = clock::load(&mut db).await?.map_or(0, |times| times.seen);
        bin::begin_anew(&mut db, seen).await?;
    }
    end_intents(&catalogue, &meta).await?;
    catalogue.close().await;
    // An `init` that was stopped here can be repeated no more.
    remove_database(&state.unfinished_catalogue())
        .and_then(|()| name_database(&unfinished, state))
        .map_err(|error| Error::because(Code::StateUnusable, "the catalogue cannot be named", error))?;
    Ok(Restored {
        kind,
        has_root_key,
        became_file: kind != meta.root_key,
    })
}

/// Whether there is a key file, which must be the catalogue's.
fn has_key_file(state: &StateDir, meta: &Meta) -> Result<bool> {
    match root::load(&state.root_key()) {
        Err(RootKeyError::Missing(_)) => Ok(false),
        found => Keyring::check(&found?, meta).map(|()| true),
    }
}

/// Stores the root key, unless a restore that was stopped has done so.
fn put_root(state: &StateDir, root: &RootKey) -> Result<()> {
    match root::load(&state.root_key()) {
        Err(RootKeyError::Missing(_)) => Ok(root::store(&state.root_key(), root)?),
        // A key that is there already is compared with the catalogue like any other.
        found => Ok(found.map(drop)?),
    }
}

/// Ends all operations that were open when the backup was taken.
async fn end_intents(catalogue: &Catalogue, meta: &Meta) -> Result<()> {
    let mut tx = catalogue.write().await?;
    let open = intents::all(&mut tx).await?;
    for intent in open.intents {
        restored::end(&mut tx, meta, &intent).await?;
    }
    for (id, why) in open.unreadable {
        log::warn!(
            "{id}, which was not ended when the backup was taken, stays open: it cannot be read: {why}"
        );
    }
    for copy in copies::unended(&mut tx).await? {
        end_copy(&mut tx, &copy).await?;
    }
    Ok(tx.commit().await?)
}

/// The copy is over. What its destination holds may be a part, or all and what came after it: its owner decides.
async fn end_copy(tx: &mut Write, id: &str) -> Result<()> {
    let Some(copy) = copies::get(tx, id).await? else {
        return Ok(());
    };
    let text = "it was not ended when the backup was taken, and does not go on";
    log::warn!("{} {id}: {text}", copy.call);
    copies::set_cut_off(tx, id, text).await?;
    if let Some(destination) = copy.destination.volume() {
        disks::set_state(tx, destination, DiskState::Error).await?;
    }
    let object = copy.object().unwrap_or(id);
    let error = Error::new(Code::Internal, text);
    audit::append(tx, &copy.caller(), &copy.call, object, Decision::Failed(&error)).await
}

async fn check(catalogue: &Catalogue) -> Result<Meta> {
    let damaged = |error| Error::because(Code::BackupInvalid, "the backup is damaged", error);
    let mut db = catalogue.write_alone().await?;
    if let Some(damage) = backup_file::damage(&mut db).await.map_err(damaged)? {
        let text = format!("the backup is damaged: {damage}");
        return Err(Error::new(Code::BackupInvalid, text));
    }
    let broken = |error| Error::because(Code::BackupInvalid, "the backup's audit log is damaged", error);
    audit::verify(&mut db, None).await.map_err(broken)?;
    meta::load(&mut db).await.map_err(damaged)
}

fn unwrap_root(row: &WrappedRoot, meta: &Meta, passphrase_file: Option<&Path>) -> Result<RootKey> {
    let cost = Cost {
        memory_kib: row.memory_kib,
        passes: row.passes,
        lanes: row.lanes,
    };
    let wrapped = WrappedKey::from_bytes(&row.wrapped)?;
    let key = Passphrase::obtain(passphrase_file, false)?.derive(&row.salt, cost)?;
    let root = match envelope::unwrap_root_key(&key, &wrapped, &root_place(meta)) {
        Err(EnvelopeError::Invalid) => {
            let text = "the passphrase is wrong (or the wrapped root key is damaged): try again";
            return Err(Error::new(Code::WrongPassphrase, text));
        }
        other => other?,
    };
    Keyring::check(&root, meta)?;
    Ok(root)
}
