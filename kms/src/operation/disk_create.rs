//! `POST /v1/disks` (rules K01, K03, K04, K05, K15, D01, D02, D05).

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{Kms, Operation, disk_show, off_runtime};
use crate::api::types::{CreateDisk, Disk};
use crate::audit::Caller;
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::keys::{self, KeyRow};
use crate::catalogue::{Write, meta};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::store::Expected;
use crate::{clock, limits, store};

impl Operation for CreateDisk {
    const CALL: &'static str = "disk.create";
    type Decided = IntentRow;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.name
    }

    async fn prepare(&mut self, kms: &Kms) -> Result<()> {
        if let Some(path) = &self.path {
            let canonical = check_path(kms, path).await?;
            check_not_taken(kms, &canonical, false).await?;
            check_empty(&canonical).await?;
            self.path = Some(canonical);
        }
        Ok(())
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<IntentRow> {
        id::check_name(&self.name)?;
        check_size(self.size)?;
        check_store(self.store.as_deref())?;
        let zone = self.zone.as_ref().unwrap_or(&kms.meta.zone);
        id::check_name(zone)?;
        if disks::find(tx, &caller.account, &self.name).await?.is_some() {
            let text = format!("there is a disk {:?} already: choose another name", self.name);
            return Err(Error::new(Code::NameTaken, text));
        }
        let path = self.path.clone();
        if let Some(path) = &path
            && disks::foreign_paths(tx).await?.contains(path)
        {
            return Err(taken(Path::new(path)));
        }
        let (account, region) = (&caller.account, &kms.meta.region);
        let key_before = keys::service_key(tx, account, region).await?;
        let lineage = self.choose_lineage(kms, caller, tx).await?;
        let made_key = match key_before {
            None => keys::service_key(tx, account, region).await?.map(|key| key.id),
            Some(_) => None,
        };
        let row = DiskRow {
            id: id::new(Kind::Disk)?,
            account: caller.account.clone(),
            name: self.name.clone(),
            state: "creating".to_owned(),
            encrypted: self.encrypted,
            size: i64::try_from(self.size).unwrap_or(i64::MAX),
            store: "raw".to_owned(),
            path,
            identity: None,
            zone: zone.clone(),
            lineage,
            created: clock::now(),
            key: None,
            key_version: None,
            key_state: None,
            attachment: None,
            instance: None,
        };
        disks::insert(tx, &row).await?;
        kms.open_intent_with_key(tx, caller, Self::CALL, &row, None, made_key)
            .await
    }

    async fn act(&self, kms: &Kms, _: &Caller, intent: IntentRow) -> Result<Disk> {
        if let Err(error) = make(kms, &intent).await {
            undo(kms, &intent, &error).await?;
            return Err(error);
        }
        let row = {
            let mut db = kms.catalogue.read().await?;
            disks::get(&mut db, &intent.disk).await?
        };
        disk_show::answer(kms, row, false).await
    }
}

impl CreateDisk {
    async fn choose_lineage(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Option<String>> {
        if !self.encrypted {
            if self.key.is_some() {
                let text = "a plain disk has no key: leave the key out, or create the disk encrypted";
                return Err(Error::new(Code::InvalidRequest, text));
            }
            return Ok(None);
        }
        if kms.profile.activation_required && !meta::is_activated(tx, &caller.account).await? {
            return Err(Error::new(
                Code::KmsNotActivated,
                "the KMS is not activated in this region: run `sealctl kms activate` first",
            ));
        }
        if let Some(wanted) = &self.key {
            check_key(kms, caller, tx, wanted).await?;
        }
        let key = kms.custody.service_key(tx, &caller.account).await?;
        check_key_state(&key)?;
        Ok(Some(kms.custody.new_lineage(tx, &caller.account, &key).await?))
    }
}

fn check_size(size: u64) -> Result<()> {
    if size == 0 || !size.is_multiple_of(limits::SECTOR_BYTES) || size > limits::LARGEST_DISK {
        return Err(Error::new(
            Code::InvalidSize,
            format!("{size} bytes: a disk has a multiple of 512 bytes, at least 512 and at most 64 TiB"),
        ));
    }
    Ok(())
}

fn check_store(store: Option<&str>) -> Result<()> {
    match store {
        None | Some("raw") => Ok(()),
        Some("layered") => Err(Error::new(
            Code::StoreNotAvailable,
            "the layered store does not exist in this version; use raw",
        )),
        Some(other) => Err(Error::new(
            Code::StoreNotAvailable,
            format!("there is no store {other:?}; use raw"),
        )),
    }
}

/// Rule K03: naming the service key is the same as naming none; no other key can be named. Rule K15.
async fn check_key(kms: &Kms, caller: &Caller, tx: &mut Write, wanted: &str) -> Result<()> {
    let Some(key) = keys::find(tx, &caller.account, wanted).await? else {
        let text = format!(
            "there is no key {wanted:?} in region {}: leave the key out",
            kms.meta.region
        );
        return Err(Error::new(Code::WrongRegion, text));
    };
    if key.region != kms.meta.region {
        let text = format!(
            "key {} is of region {}: a disk uses a key of its own region only",
            key.id, key.region
        );
        return Err(Error::new(Code::WrongRegion, text));
    }
    if key.origin != "service" {
        let text = format!(
            "key {} cannot be chosen: leave the key out to use the service key",
            key.id
        );
        return Err(Error::new(Code::KeyNotAllowed, text));
    }
    Ok(())
}

fn check_key_state(key: &KeyRow) -> Result<()> {
    if key.state != "Enabled" {
        let text = format!("key {} is {}: enable it before it is used", key.id, key.state);
        return Err(Error::new(Code::KeyNotUsable, text));
    }
    Ok(())
}

/// Checks a path that was asked for and gives it without links and dots in its directories. What is there is looked
/// at here, so that most mistakes are refusals; it is checked again, for good, when it is opened.
async fn check_path(kms: &Kms, text: &str) -> Result<String> {
    let invalid = |why: String| Error::new(Code::InvalidPath, why);
    let path = PathBuf::from(text);
    if !path.is_absolute() || text.len() > limits::PATH_BYTES || text.contains('\0') {
        return Err(invalid(format!("{text:?} is not an absolute path")));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(invalid(format!("{text:?} names no file")));
    };
    let (parent, name) = (parent.to_owned(), name.to_owned());
    let canonical = off_runtime(move || {
        let real = parent.canonicalize().map_err(|error| {
            Error::because(
                Code::InvalidPath,
                format!("{} is no directory that can be used", parent.display()),
                error,
            )
        })?;
        Ok::<_, Error>(real.join(name))
    })
    .await?;
    if canonical.starts_with(kms.state.root()) {
        return Err(invalid(
            "a path in the state directory cannot be chosen: leave the path out".to_owned(),
        ));
    }
    canonical
        .into_os_string()
        .into_string()
        .map_err(|_| invalid("the path is not UTF-8".to_owned()))
}

/// Checks that no other disk, of whatever account, has this file or device, by whatever path. With `own` the path
/// itself is our disk's by now.
async fn check_not_taken(kms: &Kms, path: &str, own: bool) -> Result<()> {
    let others = {
        let mut db = kms.catalogue.read().await?;
        disks::foreign_paths(&mut db).await?
    };
    let path = PathBuf::from(path);
    off_runtime(move || {
        let medium = store::medium(&path);
        let same = |other: &String| match Path::new(other.as_str()) {
            other if other == path => !own,
            other => medium.is_some() && store::medium(other) == medium,
        };
        if others.iter().any(same) {
            return Err(taken(&path));
        }
        Ok(())
    })
    .await
}

async fn check_empty(path: &str) -> Result<()> {
    let path = PathBuf::from(path);
    off_runtime(move || match std::fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() && found.len() > 0 => Err(store::StoreError::NotEmpty(path)),
        _ => Ok(()),
    })
    .await
}

fn taken(path: &Path) -> Error {
    let text = format!("another disk uses {}: choose another path", path.display());
    Error::new(Code::FileInUse, text)
}

async fn make(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let row = {
        let mut db = kms.catalogue.read().await?;
        disks::get(&mut db, &intent.disk).await?
    };
    let file = make_file(kms, &row).await?;
    fill_file(kms, &row, file).await?;
    commit(kms, intent).await
}

/// First step: the file exists, and the catalogue knows which it is.
pub(super) async fn make_file(kms: &Kms, row: &DiskRow) -> Result<File> {
    let (path, size) = (
        kms.state.store(&row.id, row.path.as_deref()),
        row.size.unsigned_abs(),
    );
    let expected = Expected::of(row.path.as_deref(), None);
    let (file, identity) = off_runtime(move || store::open_new(&path, size, &expected)).await?;
    if let Some(path) = &row.path {
        // Of two calls at once for two names of one file, at least one sees the other here.
        check_not_taken(kms, path, true).await?;
        let identity = identity.to_text()?;
        let mut tx = kms.catalogue.write().await?;
        disks::set_identity(&mut tx, &row.id, &identity).await?;
        tx.commit().await?;
    }
    Ok(file)
}

/// Second step: the store has its size.
pub(super) async fn fill_file(kms: &Kms, row: &DiskRow, file: File) -> Result<()> {
    let (path, size) = (
        kms.state.store(&row.id, row.path.as_deref()),
        row.size.unsigned_abs(),
    );
    let zero = !row.encrypted;
    off_runtime(move || store::fill(&file, &path, size, zero)).await
}

/// Gives up the disk's store.
pub(super) async fn release(kms: &Kms, row: &DiskRow) -> Result<()> {
    let (path, size) = (
        kms.state.store(&row.id, row.path.as_deref()),
        row.size.unsigned_abs(),
    );
    let expected = Expected::of(row.path.as_deref(), row.identity.as_deref());
    off_runtime(move || store::release(&path, size, &expected)).await
}

async fn commit(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    disks::set_state(&mut tx, &intent.disk, "available").await?;
    intents::close(&mut tx, intent).await?;
    Ok(tx.commit().await?)
}

/// Removes what was made, and refunds. Can be repeated.
///
/// # Errors
/// The file's or the catalogue's; then the intent stays open, and the next start tries again.
pub(super) async fn undo(kms: &Kms, intent: &IntentRow, error: &Error) -> Result<()> {
    let row = {
        let mut db = kms.catalogue.read().await?;
        disks::get(&mut db, &intent.disk).await?
    };
    // A file outside the state directory of which the catalogue does not know that we made it stays; it is empty.
    release(kms, &row).await?;
    let mut tx = kms.catalogue.write().await?;
    kms.record_undone(&mut tx, intent, error).await?;
    intents::refund(&mut tx, &kms.meta.region, intent).await?;
    disks::delete(&mut tx, &row).await?;
    if let Some(key) = &intent.made_key {
        // Nothing was changed by a call that came to nothing, unless somebody else uses the key by now.
        keys::delete_unused(&mut tx, key).await?;
    }
    tx.commit().await?;
    kms.catalogue.forget_deleted().await;
    Ok(())
}
