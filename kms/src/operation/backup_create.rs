//! `POST /v1/backups` (rule I03): a full copy in a file of its own, encrypted as the disk is, with the same data key.

use std::path::Path;

use super::disk_copy::check_source;
use super::disk_path::{check_empty, check_not_taken, check_path, taken};
use super::{Kms, Operation, backup_show, disk_create, find_disk, off_runtime, store_access};
use crate::api::types::{Backup, CreateBackup};
use crate::audit::Caller;
use crate::catalogue::copies::{self, CopyRow};
use crate::catalogue::volumes::{self, VolumeRow};
use crate::catalogue::{Write, backups};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::store::Identity;
use crate::{clock, state, store};

impl Operation for CreateBackup {
    const CALL: &'static str = "backup.create";
    type Decided = String;
    type Answer = Backup;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn prepare(&mut self, kms: &Kms, _: &Caller) -> Result<()> {
        if let Some(path) = &self.path {
            let canonical = check_path(kms, path).await?;
            check_not_taken(kms, &canonical, false).await?;
            check_empty(&canonical).await?;
            self.path = Some(canonical);
        }
        Ok(())
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        id::check_name(&self.name)?;
        let disk = find_disk(tx, caller, &self.disk).await?;
        check_source(kms, caller, tx, &disk).await?;
        if backups::find(tx, &caller.account, &self.name).await?.is_some() {
            let text = format!("there is a backup {:?} already: choose another name", self.name);
            return Err(Error::new(Code::NameTaken, text));
        }
        if let Some(path) = &self.path
            && volumes::foreign_paths(tx).await?.contains(path)
        {
            return Err(taken(Path::new(path)));
        }
        let now = clock::now();
        let volume = VolumeRow {
            id: id::new(Kind::Backup)?,
            account: caller.account.clone(),
            encrypted: disk.encrypted,
            size: disk.size,
            store: "layered".to_owned(),
            path: self.path.clone(),
            identity: None,
            zone: disk.zone.clone(),
            lineage: disk.lineage.clone(),
            base: None,
            compared: true,
            kind: disk.kind.clone(),
            disk_type: disk.disk_type.clone(),
            created: now.clone(),
        };
        volumes::insert(tx, &volume).await?;
        let of = (disk.id.as_str(), disk.name.as_str());
        backups::insert(tx, &volume.id, &caller.account, &self.name, of, &now).await?;
        let row = CopyRow {
            id: id::new(Kind::Intent)?,
            account: caller.account.clone(),
            call: Self::CALL.to_owned(),
            source: Some(disk.id),
            destination: Some(volume.id.clone()),
            file: None,
            identity: None,
            size: None,
            phase: "copy".to_owned(),
            position: 0,
            total: disk.size,
            clean: true,
            unprepared: true,
            trouble: None,
            uid: caller.uid,
            pid: caller.pid,
            request: caller.request.clone(),
            created: now,
        };
        copies::insert(tx, &row).await?;
        Ok(volume.id)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, backup: String) -> Result<Backup> {
        kms.copies.begin();
        backup_show::show(kms, caller, &backup).await
    }
}

/// Makes the backup's store. Can be repeated: what an earlier attempt has left is removed.
///
/// # Errors
/// The file's, the backend's or the catalogue's.
pub(super) async fn make_store(kms: &Kms, backup: &str) -> Result<()> {
    let volume = get(kms, backup).await?;
    let directory = kms.state.backups();
    let (path, expected) = (volume.location(&kms.state), volume.expected());
    let is_device = match &volume.identity {
        Some(text) => matches!(Identity::parse(text, &path)?, Identity::Device { .. }),
        None => false,
    };
    off_runtime(move || {
        state::make_directory(&directory, 0o700).map_err(|source| store::StoreError::Io {
            path: directory,
            source,
        })?;
        if is_device {
            return store::blank_again(&path, &expected);
        }
        store::release(&path, None, &expected)
    })
    .await?;
    drop(disk_create::make_file(kms, &volume).await?);
    store_access::create(kms, &get(kms, backup).await?).await
}

async fn get(kms: &Kms, backup: &str) -> Result<VolumeRow> {
    let mut db = kms.catalogue.read().await?;
    Ok(volumes::get(&mut db, backup).await?)
}
