//! `POST /v1/disks/{disk}/resize` (rules D05, D06).

use sealblk_proto::message::Change;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::intents::{IntentRow, Work};
use crate::catalogue::services;
use crate::catalogue::states::DiskState;
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::intents::{Subject, store_change};
use crate::profile::{NewSize, Profile};
use crate::rules::available::{check_idle, check_workable};
use crate::rules::disk_size::check_size;
use crate::views;
use sealblk_api::{self, Disk};

/// Makes a disk larger. What is new reads zeros.
pub(crate) struct Resize {
    /// Id or name.
    pub(crate) disk: String,
    /// The call's body.
    pub(crate) options: sealblk_api::Resize,
}

impl Operation for Resize {
    const CALL: &'static str = "disk.resize";
    type Decided = IntentRow;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        let disk = {
            let mut db = kms.catalogue.read().await?;
            find::disk(&mut db, caller, &self.disk).await?
        };
        let Some(attachment) = hides_growth(kms.profile, &disk) else {
            return Ok(());
        };
        if kms.supervisor.knows_guest_size(attachment).await {
            return Ok(());
        }
        let text = format!(
            "disk {0} is attached, and is served by a process of an earlier version, or by none at the moment: `sealctl backend \
             restart {0}` has one of this version serve it; or detach it first",
            disk.name
        );
        Err(Error::new(Code::ResizeNeedsDetach, text))
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<IntentRow> {
        let disk = find::disk(tx, caller, &self.disk).await?;
        check_size(self.options.size)?;
        if disk.state == DiskState::ErrorResizing {
            // A resize that has failed is ended by one that succeeds.
            check_idle(tx, &disk.id).await?;
        } else {
            check_workable(tx, &disk, "resize").await?;
        }
        refuse_shrinking(&disk, self.options.size)?;
        if hides_growth(kms.profile, &disk).is_some() {
            services::keep_guest_size(tx, &disk.id, disk.size).await?;
        }
        disks::set_state(tx, &disk.id, DiskState::Resizing).await?;
        let size = i64::try_from(self.options.size).unwrap_or(i64::MAX);
        let work = Work::Resize { size };
        kms.open_intent(tx, caller, work, Subject::disk(&disk)).await
    }

    async fn act(&self, kms: &Kms, _: &Caller, intent: IntentRow) -> Result<Disk> {
        let service = {
            let mut db = kms.catalogue.read().await?;
            services::of_disk(&mut db, &intent.disk).await?
        };
        let guest_size = service.and_then(|service| Some((service.id, service.guest_size?)));
        // Before the process grows it, which may die on the way.
        if let Some((service, size)) = &guest_size {
            kms.supervisor.keep_guest_size(service, size.unsigned_abs());
        }
        let change = Change::Resize {
            size: self.options.size,
            hidden: guest_size.is_some(),
        };
        store_change::carry_out(kms, &intent, change).await?;
        views::disk::after(kms, &intent.disk).await
    }
}

fn refuse_shrinking(disk: &DiskRow, size: u64) -> Result<()> {
    let present = disk.size.unsigned_abs();
    if size >= present {
        return Ok(());
    }
    let text = format!(
        "disk {} has {present} bytes and does not become smaller: copy its data to a smaller disk in the guest",
        disk.name
    );
    Err(Error::new(Code::CannotShrink, text))
}

/// Rule D06: the attachment of a disk whose guests see a new size when it is attached anew.
fn hides_growth<'d>(profile: &Profile, disk: &'d DiskRow) -> Option<&'d str> {
    match profile.new_size {
        NewSize::Live => None,
        NewSize::AfterReattach => disk.attachment.as_deref(),
    }
}
