//! `POST /v1/disks/{disk}/restore` (rule K14).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::counts::Counted;
use crate::catalogue::{Write, bin, disks};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::id;
use crate::rules::available::check_idle;
use crate::rules::quota;
use crate::views;
use sealblk_api::Disk;

/// Brings a deleted disk back: the same disk, with its id, its key and its snapshots.
pub(crate) struct RestoreDisk {
    /// Its id, or the name that it had.
    pub(crate) disk: String,
    /// The call's body.
    pub(crate) options: sealblk_api::RestoreDisk,
}

impl Operation for RestoreDisk {
    const CALL: &'static str = "disk.restore";
    type Decided = String;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let row = find::deleted_disk(tx, caller, &self.disk).await?.disk;
        check_idle(tx, &row.id).await?;
        let name = match &self.options.name {
            Some(name) => {
                id::check_name(name)?;
                name
            }
            None => &row.name,
        };
        if disks::find(tx, &caller.account, name).await?.is_some() {
            let text =
                format!("there is a disk {name:?} by now: choose another name for this one with --name");
            return Err(Error::new(Code::NameTaken, text));
        }
        quota::check(kms, tx, &caller.account, Counted::Disks).await?;
        bin::restore(tx, &row, name).await?;
        Ok(row.id)
    }

    async fn act(&self, kms: &Kms, _: &Caller, id: String) -> Result<Disk> {
        views::disk::after(kms, &id).await
    }
}
