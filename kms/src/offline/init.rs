//! `sealblk-kms init`.

use std::path::Path;

use sealblk_proto::keys::RootKey;

use crate::audit::{self, Caller, Decision, Facts};
use crate::catalogue::Catalogue;
use crate::catalogue::database_file::remove_database;
use crate::catalogue::meta::{self, Meta};
use crate::catalogue::root_key_kind::RootKeyKind;
use crate::console::say;
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::keys::keyring::Keyring;
use crate::keys::passphrase::Passphrase;
use crate::keys::root::{self, Credential, RootKeyError, RootKeyProvider, SealedFile};
use crate::limits;
use crate::profile::{Gate, Profile, stored};
use crate::state::{StateDir, sync_directory};

/// What a region is made with.
pub(crate) struct Region {
    pub(crate) region: String,
    pub(crate) zone: String,
    /// Name of the profile.
    pub(crate) profile: String,
    /// Balance of the account `default`, in micro-units.
    pub(crate) balance: u64,
    /// Activate the KMS for it (rule K01).
    pub(crate) activate: bool,
}

/// Makes a state directory. Until its catalogue has its name, it can be done again; with a passphrase, after the sealed key
/// that was made has been removed.
///
/// # Errors
/// [`Code::StateExists`] and those of the parts.
pub(crate) async fn init(
    path: &Path,
    region: &Region,
    root_key: RootKeyKind,
    passphrase_file: Option<&Path>,
) -> Result<()> {
    let Region {
        region,
        zone,
        profile,
        balance,
        activate,
    } = region;
    let (balance, activate) = (*balance, *activate);
    id::check_name(region)?;
    id::check_name(zone)?;
    let profile = Profile::named(profile).ok_or_else(|| {
        let text = format!(
            "this version has no profile {profile:?}; it has: {}",
            Profile::names()
        );
        Error::new(Code::UnknownProfile, text)
    })?;
    if balance > limits::BALANCE_MOST {
        let text = format!(
            "{balance} micro-units: a balance is at most {}",
            limits::BALANCE_MOST
        );
        return Err(Error::new(Code::InvalidAmount, text));
    }
    if activate && profile.gate != Gate::Activation {
        let text = format!(
            "profile {} asks for a grant: leave --activate out, and run `sealctl kms grant` later",
            profile.name
        );
        return Err(Error::new(Code::NotSupported, text));
    }
    let (state, _lock) = StateDir::create(path)?;
    if state.unfinished_restore().exists() {
        let text = format!(
            "{} holds a restore that was stopped: repeat the restore, or remove the directory",
            state.root().display()
        );
        return Err(Error::new(Code::StateExists, text));
    }
    let mut meta = Meta {
        catalogue: id::new(Kind::Catalogue)?,
        region: region.to_owned(),
        zone: zone.to_owned(),
        profile: profile.name.to_owned(),
        switches: Some(stored::switches_of(profile)?),
        key_check: Vec::new(),
        root_key,
    };
    let root = load_or_make_root_key(&state, &meta, passphrase_file)?;
    meta.key_check = Keyring::key_check(&root, &meta)?;
    make_catalogue(&state, &meta, balance, activate).await?;
    say(&format!(
        "{} is ready: sealblk-kms serve --state {0}",
        state.root().display()
    ));
    say(&format!(
        "Keep a copy of {} in a safe place: without it every encrypted disk is lost.",
        root_key.place(&state)
    ));
    Ok(())
}

/// A root key that is there already was put there, or is of an `init` that did not get to its end.
fn load_or_make_root_key(state: &StateDir, meta: &Meta, passphrase_file: Option<&Path>) -> Result<RootKey> {
    match meta.root_key {
        RootKeyKind::File => load_or_make_key_file(state),
        RootKeyKind::Credential => Credential::from_environment()?.load(),
        RootKeyKind::Passphrase => {
            // The file may be of an `init` that did not get to its end, or the only key of a catalogue that is to be restored.
            if state.sealed_root_key().exists() {
                let text = format!(
                    "{} is there already, and is another catalogue's: remove it if it is of an init that was stopped, or \
                     restore the catalogue that it belongs to",
                    state.sealed_root_key().display()
                );
                return Err(Error::new(Code::StateExists, text));
            }
            let passphrase = Passphrase::obtain(passphrase_file, true)?;
            SealedFile::create(state.sealed_root_key(), meta, &passphrase)?.load()
        }
    }
}

fn load_or_make_key_file(state: &StateDir) -> Result<RootKey> {
    match root::load(&state.root_key()) {
        Err(RootKeyError::Missing(_)) => {}
        loaded => return Ok(loaded?),
    }
    let failed = |error| Error::because(Code::Internal, "the root key cannot be made", error);
    let key = RootKey::generate().map_err(failed)?;
    root::store(&state.root_key(), &key)?;
    Ok(key)
}

async fn make_catalogue(state: &StateDir, meta: &Meta, balance: u64, activate: bool) -> Result<()> {
    let failed = |error| Error::because(Code::StateUnusable, "the catalogue cannot be made", error);
    let unfinished = state.unfinished_catalogue();
    remove_database(&unfinished).map_err(failed)?;
    let catalogue = Catalogue::create(&unfinished).await?;
    let caller = Caller {
        account: meta::OWNER.to_owned(),
        uid: rustix::process::geteuid().as_raw(),
        pid: std::process::id() as i32,
        request: id::new(Kind::Request)?,
        facts: Facts::default(),
    };
    let mut tx = catalogue.write().await?;
    meta::insert(&mut tx, meta, caller.uid, balance).await?;
    audit::append(&mut tx, &caller, "init", &meta.catalogue, Decision::Allowed).await?;
    if activate {
        meta::activate(&mut tx, &caller.account).await?;
        audit::append(&mut tx, &caller, "kms.activate", "kms", Decision::Allowed).await?;
    }
    tx.commit().await?;
    catalogue.close().await;
    name_database(&unfinished, state).map_err(failed)
}

/// Gives a closed database its name in the state directory, durably.
pub(crate) fn name_database(unfinished: &Path, state: &StateDir) -> std::io::Result<()> {
    std::fs::File::open(unfinished)?.sync_all()?;
    std::fs::rename(unfinished, state.catalogue())?;
    sync_directory(state.root())
}
