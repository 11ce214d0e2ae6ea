//! `GET /v1/disks?deleted=true`: disks in the bin.

use crate::audit::Caller;
use crate::catalogue::Page;
use crate::catalogue::bin::{self, BinRow, Removal};
use crate::context::Kms;
use crate::error::Result;
use crate::views;
use sealblk_api::{Disk, DiskList};

/// A page of the account's deleted disks.
pub(crate) async fn list(kms: &Kms, caller: &Caller, page: &Page) -> Result<DiskList> {
    let (rows, next) = {
        let mut db = kms.catalogue.read().await?;
        bin::list(&mut db, &caller.account, page).await?
    };
    let (rows, times): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .map(|row| (row.disk, (row.deleted, row.removal)))
        .unzip();
    let disks = views::disk::listed(kms, rows, None).await?;
    let disks = disks.into_iter().zip(times);
    Ok(DiskList {
        disks: disks.map(|(disk, times)| deleted(kms, disk, times)).collect(),
        next,
    })
}

/// One deleted disk, as the API gives it.
pub(crate) async fn answer(kms: &Kms, row: BinRow) -> Result<Disk> {
    let disk = views::disk::answer(kms, row.disk, None, None).await?;
    Ok(deleted(kms, disk, (row.deleted, row.removal)))
}

fn deleted(kms: &Kms, disk: Disk, (deleted, removal): (String, Removal)) -> Disk {
    Disk {
        state: "deleted".to_owned(),
        deleted: Some(deleted),
        removal: Some(removal.planned(&kms.clock.now())),
        ..disk
    }
}
