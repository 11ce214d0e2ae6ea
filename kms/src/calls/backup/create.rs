//! `POST /v1/backups` (rule I03): a full copy in a file of its own, encrypted as the disk or snapshot is, with the same data
//! key.

use std::path::Path;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::copies::{CopyRow, Destination, Origin};
use crate::catalogue::counts::Counted;
use crate::catalogue::kinds::Store;
use crate::catalogue::volumes::{self, VolumeRow};
use crate::catalogue::{Write, backups};
use crate::clock;
use crate::context::{Kms, find};
use crate::copies::{begin, fresh};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::rules::copyable::check_source;
use crate::rules::quota;
use crate::rules::source::usable_snapshot;
use crate::views;
use crate::volumes::path::{self, taken};
use sealblk_api::{Backup, CreateBackup};

impl Operation for CreateBackup {
    const CALL: &'static str = "backup.create";
    type Decided = String;
    type Answer = Backup;

    fn object(&self) -> &str {
        let named = self.disk.as_deref().or(self.snapshot.as_deref());
        named.unwrap_or(&self.name)
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        if let Some(path) = &self.path {
            self.path = Some(path::choose(kms, caller, path).await?);
        }
        Ok(())
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        id::check_name(&self.name)?;
        quota::check(kms, tx, &caller.account, Counted::Backups).await?;
        let source = source_of(self, kms, caller, tx).await?;
        if backups::find(tx, &caller.account, &self.name).await?.is_some() {
            let text = format!("there is a backup {:?} already: choose another name", self.name);
            return Err(Error::new(Code::NameTaken, text));
        }
        if let Some(path) = &self.path
            && volumes::has_path(tx, path).await?
        {
            return Err(taken(Path::new(path)));
        }
        let now = clock::now();
        let volume = VolumeRow {
            store: Store::Layered,
            path: self.path.clone(),
            created: now.clone(),
            ..source
                .volume
                .alike(id::new(Kind::Backup)?, caller.account.clone())
        };
        volumes::insert(tx, &volume).await?;
        caller.facts.note("backup", volume.id.as_str());
        let of = (source.disk.as_str(), source.disk_name.as_str());
        backups::insert(tx, &volume.id, &caller.account, &self.name, of, &now).await?;
        let ends = (source.origin, Destination::Backup(volume.id.clone()));
        let row = CopyRow {
            unprepared: true,
            ..begin::copy(id::new(Kind::Intent)?, caller, Self::CALL, ends, volume.size)
        };
        begin::insert(kms, tx, &row).await?;
        Ok(volume.id)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, backup: String) -> Result<Backup> {
        kms.copies.begin();
        views::backup::show(kms, caller, &backup).await
    }
}

/// What a backup is made of.
struct Source {
    origin: Origin,
    /// The volume that is read.
    volume: VolumeRow,
    /// Id and name of the disk whose data it is.
    disk: String,
    disk_name: String,
}

async fn source_of(wanted: &CreateBackup, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Source> {
    match (&wanted.disk, &wanted.snapshot) {
        (Some(disk), None) => {
            let disk = find::disk(tx, caller, disk).await?;
            check_source(kms, caller, tx, &disk).await?;
            Ok(Source {
                volume: volumes::get(tx, &disk.id).await?,
                origin: Origin::Volume(Some(disk.id.clone())),
                disk: disk.id,
                disk_name: disk.name,
            })
        }
        (None, Some(snapshot)) => {
            let row = find::snapshot(tx, caller, None, snapshot).await?;
            let words = usable_snapshot(&row)?;
            let clone = fresh::open_copied(kms, caller, tx, &row, &words).await?;
            Ok(Source {
                volume: volumes::get(tx, &clone).await?,
                origin: Origin::Clone {
                    volume: Some(clone),
                    snapshot: row.id,
                },
                disk_name: row.disk_name.unwrap_or_else(|| row.volume.clone()),
                disk: row.volume,
            })
        }
        _ => {
            let text = "a backup is made either of a disk or of a snapshot: name one of them";
            Err(Error::new(Code::InvalidRequest, text))
        }
    }
}
