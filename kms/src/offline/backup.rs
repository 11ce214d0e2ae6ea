//! `sealblk-kms backup`.
//!
//! A backup is one SQLite file: the catalogue as `VACUUM INTO` writes it, consistent while it is being served. With
//! `--with-root-key` it has one table more, `backup_root_key`: cost and salt of Argon2id, and the root key, wrapped
//! by the envelope's format under the passphrase's key, bound to the catalogue's id. The disks' data are not in it.

use std::path::{Path, PathBuf};

use sealblk_proto::keys::RootKey;

use crate::audit::{self, Caller, Decision, Facts};
use crate::catalogue::backup_file::{self, WrappedRoot};
use crate::catalogue::database_file::{name_new, refuse_existing, remove_database};
use crate::catalogue::meta::{self, Meta};
use crate::catalogue::{Catalogue, schema};
use crate::console::say;
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::keys::envelope::{self, Place};
use crate::keys::keyring::Keyring;
use crate::keys::passphrase::{COST, Passphrase};
use crate::keys::root;
use crate::state::StateDir;

const SALT_BYTES: usize = 16;

/// Writes a backup.
///
/// # Errors
/// [`Code::NotAuthorized`] for others than the owner, [`Code::FileExists`], and those of the parts.
pub(crate) async fn backup(
    state: &Path,
    file: &Path,
    with_root_key: bool,
    passphrase_file: Option<&Path>,
    root_passphrase_file: Option<&Path>,
) -> Result<()> {
    let state = StateDir::open(state)?;
    // As it is: an earlier version may be serving it.
    let (catalogue, _) = Catalogue::open_as_it_is(&state.catalogue()).await?;
    let meta = {
        let mut db = catalogue.read().await?;
        meta::load_of_any_version(&mut db).await?
    };
    refuse_existing(file)?;
    let root = if with_root_key {
        Some(RootCopy::take(
            &state,
            &meta,
            passphrase_file,
            root_passphrase_file,
        )?)
    } else {
        None
    };
    let call = if with_root_key {
        "backup.with-root-key"
    } else {
        "backup"
    };
    record(&catalogue, call, &meta).await?;
    let unfinished = unfinished_name(file)?;
    let written = write(&state.catalogue(), &unfinished, root.as_ref())
        .await
        .and_then(|()| name_new(&unfinished, file));
    if written.is_err() {
        let _ = remove_database(&unfinished);
    }
    catalogue.close().await;
    written?;
    say(&format!(
        "{} holds the catalogue and its wrapped keys.",
        file.display()
    ));
    if !with_root_key {
        say(&format!(
            "It does not hold the root key: keep {} apart from it.",
            meta.root_key.place(&state)
        ));
    }
    Ok(())
}

/// Records a call that this process makes for its own user.
///
/// # Errors
/// [`Code::NotAuthorized`] for others than the owner, and the catalogue's.
pub(crate) async fn record(catalogue: &Catalogue, call: &str, meta: &Meta) -> Result<()> {
    let uid = rustix::process::geteuid().as_raw();
    let mut tx = catalogue.write().await?;
    let account = meta::account_of(&mut tx, uid).await?;
    let refused = account.is_none().then(|| {
        Error::new(
            Code::NotAuthorized,
            format!("uid {uid} does not own this catalogue: run it as its owner"),
        )
    });
    let caller = Caller {
        account: account.unwrap_or_default(),
        uid,
        pid: std::process::id() as i32,
        request: id::new(Kind::Request)?,
        facts: Facts::default(),
    };
    let decision = refused.as_ref().map_or(Decision::Allowed, Decision::Refused);
    audit::append_to_any_version(&mut tx, &caller, call, &meta.catalogue, decision).await?;
    tx.commit().await?;
    refused.map_or(Ok(()), Err)
}

async fn write(catalogue: &Path, path: &Path, root: Option<&RootCopy>) -> Result<()> {
    schema::copy(catalogue, path).await?;
    let Some(root) = root else { return Ok(()) };
    let (copy, _) = Catalogue::open_as_it_is(path).await?;
    let mut tx = copy.write().await?;
    // The root key may have been rotated while the passphrase was asked for.
    Keyring::check(&root.key, &meta::load_of_any_version(&mut tx).await?).map_err(|error| {
        let text = "the root key was rotated meanwhile: give the command again";
        Error::because(Code::RootKeyMismatch, text, error)
    })?;
    backup_file::put_root(&mut tx, &root.wrapped).await?;
    tx.commit().await?;
    copy.close().await;
    Ok(())
}

/// A root key that is to go into a backup.
struct RootCopy {
    key: RootKey,
    wrapped: WrappedRoot,
}

impl RootCopy {
    fn take(
        state: &StateDir,
        meta: &Meta,
        passphrase_file: Option<&Path>,
        root_passphrase_file: Option<&Path>,
    ) -> Result<Self> {
        let provider = root::provider_of(state, meta, root_passphrase_file)?;
        let (key, _) = root::find(&*provider, |root| Keyring::check(root, meta))?;
        let wrapped = wrap_root(&key, meta, passphrase_file)?;
        Ok(RootCopy { key, wrapped })
    }
}

fn wrap_root(root: &RootKey, meta: &Meta, passphrase_file: Option<&Path>) -> Result<WrappedRoot> {
    let mut salt = vec![0; SALT_BYTES];
    getrandom::fill(&mut salt)
        .map_err(|error| Error::because(Code::Internal, "the operating system gives no randomness", error))?;
    let key = Passphrase::obtain(passphrase_file, true)?.derive(&salt, COST)?;
    let wrapped = envelope::wrap_root_key(&key, root, &root_place(meta))?;
    Ok(WrappedRoot {
        memory_kib: COST.memory_kib,
        passes: COST.passes,
        lanes: COST.lanes,
        salt,
        wrapped: wrapped.as_bytes().to_vec(),
    })
}

/// What a wrapped root key is bound to.
pub(crate) fn root_place(meta: &Meta) -> Place<'_> {
    Place {
        region: &meta.region,
        account: "",
        key: &meta.catalogue,
        key_version: 0,
        lineage: "",
    }
}

/// A name in the same directory, to be renamed when all is written.
fn unfinished_name(file: &Path) -> Result<PathBuf> {
    let name = file
        .file_name()
        .ok_or_else(|| Error::new(Code::InvalidPath, "the backup's path names no file"))?;
    let mut unfinished = std::ffi::OsString::from(".");
    unfinished.push(name);
    unfinished.push(format!(".{}", std::process::id()));
    Ok(file.with_file_name(unfinished))
}
