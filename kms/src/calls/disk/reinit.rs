//! `POST /v1/disks/{disk}/reinit` (rules D07, S05, D05, M01).

use sealblk_proto::message::Change;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::copies::{CopyRow, Origin};
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::intents::{self, IntentRow, Work};
use crate::catalogue::kinds::Store;
use crate::catalogue::states::DiskState;
use crate::catalogue::{Write, volumes};
use crate::context::{Kms, find};
use crate::copies::begin;
use crate::error::Result;
use crate::intents::{Subject, store_change};
use crate::rules::available::{check_workable, refuse_in_use};
use crate::rules::copyable::{Wanted, check_destination};
use crate::views;
use sealblk_api::{self, Disk};

/// Makes a disk empty: it reads zeros, and keeps its id, its size and its snapshots.
pub(crate) struct Reinitialise {
    /// Id or name.
    pub(crate) disk: String,
    /// The call's body.
    pub(crate) options: sealblk_api::Reinitialise,
}

/// How it is made empty.
pub(crate) enum Decided {
    /// By one change of its layered store.
    Change(Box<IntentRow>),
    /// By writing zeros all over it, enciphered if it is: a copy to the disk of this id, which goes on by itself.
    Zeros(String),
}

impl Operation for Reinitialise {
    const CALL: &'static str = "disk.reinit";
    const FREES: bool = true;
    type Decided = Decided;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Decided> {
        let disk = find::disk(tx, caller, &self.disk).await?;
        if disk.store == Store::Raw {
            refuse_in_use(&disk, self.options.force)?;
            return begin_zeros(kms, caller, tx, disk).await.map(Decided::Zeros);
        }
        check_workable(tx, &disk, "re-initialisation").await?;
        refuse_in_use(&disk, self.options.force)?;
        disks::set_state(tx, &disk.id, DiskState::RollingBack).await?;
        let intent = kms.open_intent(tx, caller, Work::Reinitialise, Subject::disk(&disk));
        Ok(Decided::Change(Box::new(intent.await?)))
    }

    async fn act(&self, kms: &Kms, _: &Caller, decided: Decided) -> Result<Disk> {
        match decided {
            Decided::Change(intent) => {
                let change = Change::Reinitialise {
                    force: self.options.force,
                };
                store_change::carry_out(kms, &intent, change).await?;
                views::disk::after(kms, &intent.disk).await
            }
            Decided::Zeros(disk) => {
                kms.copies.begin();
                views::disk::after(kms, &disk).await
            }
        }
    }
}

/// A raw disk is written whole, which takes as long as a copy to it, needs its key, and goes on like one over crashes. So it is
/// charged when it begins.
async fn begin_zeros(kms: &Kms, caller: &Caller, tx: &mut Write, disk: DiskRow) -> Result<String> {
    let wanted = Wanted {
        bytes: disk.size,
        what: "zeros",
        overwrite: true,
    };
    check_destination(kms, caller, tx, &wanted, &disk).await?;
    let charged = kms
        .open_intent(tx, caller, Work::Reinitialise, Subject::disk(&disk))
        .await?;
    intents::close(tx, &charged).await?;
    let row = CopyRow {
        // Whatever is known of what was written: this is the call that mends it.
        clean: false,
        ..begin::to_disk(tx, caller, Reinitialise::CALL, (Origin::Zeros, disk.size), &disk).await?
    };
    begin::insert(kms, tx, &row).await?;
    volumes::set_written(tx, &disk.id, true).await?;
    disks::set_state(tx, &disk.id, DiskState::Creating).await?;
    Ok(disk.id)
}
