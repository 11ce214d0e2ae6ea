//! `sealblk-kms backup` and `restore`.
//!
//! A backup is one SQLite file: the catalogue as `VACUUM INTO` writes it, consistent while it is being served. With
//! `--with-root-key` it has one table more, `backup_root_key`: cost and salt of Argon2id, and the root key, wrapped
//! by the envelope's format under the passphrase's key, bound to the catalogue's id. The disks' data are not in it.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use sealblk_proto::keys::RootKey;
use sqlx::{FromRow, SqliteConnection};

use crate::audit::{self, Caller, Decision};
use crate::catalogue::Catalogue;
use crate::catalogue::meta::{self, Meta};
use crate::custody::Custody;
use crate::envelope::{self, EnvelopeError, Place, WrappedKey};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::init::{name_database, remove_database};
use crate::passphrase::{COST, Cost, Passphrase};
use crate::rootkey;
use crate::state::{StateDir, sync_directory};

const SALT_BYTES: usize = 16;

#[derive(FromRow)]
struct WrappedRoot {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: Vec<u8>,
    wrapped: Vec<u8>,
}

/// Writes a backup.
///
/// # Errors
/// [`Code::NotAuthorized`] for others than the owner, [`Code::FileExists`], and those of the parts.
pub(crate) async fn backup(
    state: &Path,
    file: &Path,
    with_root_key: bool,
    passphrase_file: Option<&Path>,
) -> Result<()> {
    let state = StateDir::open(state)?;
    let catalogue = Catalogue::open(&state.catalogue()).await?;
    let meta = {
        let mut db = catalogue.read().await?;
        meta::load(&mut db).await?
    };
    refuse_existing(file)?;
    let wrapped = if with_root_key {
        Some(wrap_root(&state, &meta, passphrase_file)?)
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
    let written = write(&catalogue, &unfinished, wrapped.as_ref())
        .await
        .and_then(|()| name(&unfinished, file));
    if written.is_err() {
        let _ = remove_database(&unfinished);
    }
    catalogue.close().await;
    written?;
    println!("{} holds the catalogue and its wrapped keys.", file.display());
    if !with_root_key {
        println!(
            "It does not hold the root key: keep {} apart from it.",
            state.root_key().display()
        );
    }
    Ok(())
}

async fn record(catalogue: &Catalogue, call: &str, meta: &Meta) -> Result<()> {
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
    };
    let decision = refused.as_ref().map_or(Decision::Allowed, Decision::Refused);
    audit::append(&mut tx, &caller, call, &meta.catalogue, decision).await?;
    tx.commit().await?;
    refused.map_or(Ok(()), Err)
}

async fn write(catalogue: &Catalogue, path: &Path, root: Option<&WrappedRoot>) -> Result<()> {
    let text = path
        .to_str()
        .ok_or_else(|| Error::new(Code::InvalidPath, "the backup's path is not UTF-8"))?;
    {
        let mut db = catalogue.write_alone().await?;
        sqlx::query("VACUUM INTO ?").bind(text).execute(&mut *db).await?;
    }
    let Some(root) = root else { return Ok(()) };
    let copy = Catalogue::open(path).await?;
    let mut tx = copy.write().await?;
    sqlx::query(
        "CREATE TABLE backup_root_key (memory_kib INTEGER NOT NULL, passes INTEGER NOT NULL,
                                       lanes INTEGER NOT NULL, salt BLOB NOT NULL, wrapped BLOB NOT NULL) STRICT",
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query("INSERT INTO backup_root_key VALUES (?, ?, ?, ?, ?)")
        .bind(root.memory_kib)
        .bind(root.passes)
        .bind(root.lanes)
        .bind(&root.salt)
        .bind(&root.wrapped)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    copy.close().await;
    Ok(())
}

fn wrap_root(state: &StateDir, meta: &Meta, passphrase_file: Option<&Path>) -> Result<WrappedRoot> {
    let root = rootkey::load(&state.root_key())?;
    Custody::check(&root, meta)?;
    let mut salt = vec![0; SALT_BYTES];
    getrandom::fill(&mut salt)
        .map_err(|error| Error::because(Code::Internal, "the operating system gives no randomness", error))?;
    let key = Passphrase::obtain(passphrase_file, true)?.derive(&salt, COST)?;
    let wrapped = envelope::wrap_root_key(&key, &root, &root_place(meta))?;
    Ok(WrappedRoot {
        memory_kib: COST.memory_kib,
        passes: COST.passes,
        lanes: COST.lanes,
        salt,
        wrapped: wrapped.as_bytes().to_vec(),
    })
}

fn root_place(meta: &Meta) -> Place<'_> {
    Place {
        region: &meta.region,
        account: "",
        key: &meta.catalogue,
        key_version: 0,
        lineage: "",
    }
}

fn refuse_existing(file: &Path) -> Result<()> {
    if std::fs::symlink_metadata(file).is_ok() {
        let text = format!("{} exists already: choose another name", file.display());
        return Err(Error::new(Code::FileExists, text));
    }
    Ok(())
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

fn name(unfinished: &Path, file: &Path) -> Result<()> {
    let failed = |error| {
        Error::because(
            Code::FileFailed,
            format!("{} cannot be written", file.display()),
            error,
        )
    };
    File::open(unfinished)
        .and_then(|file| file.sync_all())
        .map_err(failed)?;
    match rustix::fs::renameat_with(CWD, unfinished, CWD, file, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => refuse_existing(file)?,
        Err(errno) => return Err(failed(errno.into())),
    }
    let parent = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    sync_directory(parent).map_err(failed)
}

/// Makes a state directory from a backup.
///
/// # Errors
/// [`Code::StateExists`] if the directory is not empty, [`Code::BackupInvalid`], [`Code::WrongPassphrase`].
pub(crate) async fn restore(path: &Path, file: &Path, passphrase_file: Option<&Path>) -> Result<()> {
    if std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
        let text = format!("{} is not empty: restore into a new directory", path.display());
        return Err(Error::new(Code::StateExists, text));
    }
    let failed = |error| {
        Error::because(
            Code::FileFailed,
            format!("{} cannot be copied", file.display()),
            error,
        )
    };
    let mut source = File::open(file).map_err(failed)?;
    let state = StateDir::create(path)?;
    let _lock = state.lock()?;
    let unfinished = state.unfinished_catalogue();
    let copied = File::create_new(&unfinished).and_then(|mut copy| std::io::copy(&mut source, &mut copy));
    copied.map_err(failed)?;
    let restored = restore_copy(&state, &unfinished, passphrase_file).await;
    if restored.is_err() {
        undo(&state);
    }
    let with_root_key = restored?;
    println!(
        "{} is restored. The disks' data were not in the backup.",
        state.root().display()
    );
    if !with_root_key {
        println!(
            "Put the root key into {} (mode 0600) before you serve.",
            state.root_key().display()
        );
    }
    Ok(())
}

/// Leaves the directory as empty as it was.
fn undo(state: &StateDir) {
    let _ = remove_database(&state.unfinished_catalogue());
    for file in [state.root_key(), state.root().join("lock")] {
        let _ = std::fs::remove_file(file);
    }
    for directory in [state.disks(), state.run()] {
        let _ = std::fs::remove_dir(directory);
    }
}

/// Checks the copy, takes the root key out of it, and gives it its name. Whether there was a root key.
async fn restore_copy(state: &StateDir, unfinished: &Path, passphrase_file: Option<&Path>) -> Result<bool> {
    let invalid = |error| Error::because(Code::BackupInvalid, "it is no backup, or a damaged one", error);
    let catalogue = Catalogue::open(unfinished).await.map_err(invalid)?;
    let meta = check(&catalogue).await?;
    let root = take_root(&catalogue).await?;
    if let Some(wrapped) = &root {
        rootkey::store(&state.root_key(), &unwrap_root(wrapped, &meta, passphrase_file)?)?;
    }
    record(&catalogue, "restore", &meta).await?;
    catalogue.close().await;
    name_database(unfinished, state)
        .map_err(|error| Error::because(Code::StateUnusable, "the catalogue cannot be named", error))?;
    Ok(root.is_some())
}

async fn check(catalogue: &Catalogue) -> Result<Meta> {
    let damaged = |error| Error::because(Code::BackupInvalid, "the backup is damaged", error);
    let mut db = catalogue.write_alone().await?;
    let integrity: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut *db)
        .await
        .map_err(damaged)?;
    let dangling = sqlx::query("PRAGMA foreign_key_check")
        .fetch_all(&mut *db)
        .await
        .map_err(damaged)?;
    if integrity != "ok" || !dangling.is_empty() {
        let text = format!(
            "the backup is damaged: {integrity}, {} dangling references",
            dangling.len()
        );
        return Err(Error::new(Code::BackupInvalid, text));
    }
    let broken = |error| Error::because(Code::BackupInvalid, "the backup's audit log is damaged", error);
    audit::verify(&mut db).await.map_err(broken)?;
    meta::load(&mut db).await.map_err(damaged)
}

/// Reads the wrapped root key, if there is one, and removes it from the catalogue.
async fn take_root(catalogue: &Catalogue) -> Result<Option<WrappedRoot>> {
    let mut db = catalogue.write_alone().await?;
    if !has_root(&mut db).await? {
        return Ok(None);
    }
    let root = sqlx::query_as("SELECT * FROM backup_root_key")
        .fetch_one(&mut *db)
        .await?;
    sqlx::query("DROP TABLE backup_root_key")
        .execute(&mut *db)
        .await?;
    sqlx::query("VACUUM").execute(&mut *db).await?;
    Ok(Some(root))
}

async fn has_root(db: &mut SqliteConnection) -> Result<bool> {
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'backup_root_key')";
    Ok(sqlx::query_scalar(exists).fetch_one(db).await?)
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
    Custody::check(&root, meta)?;
    Ok(root)
}
