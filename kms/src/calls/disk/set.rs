//! `PATCH /v1/disks/{disk}`: a disk can be renamed, and told what to do without room; what never changes is refused (rules D03, K09).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::disks::{self, DiskRow};
use crate::context::plans::on_full_of;
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::id;
use crate::rules::available::check_idle;
use crate::rules::fixed::{Fixed, Object};
use crate::views;
use crate::volumes::{on_full, service_plan};
use sealblk_api::{self, Disk};

/// Changes what can be changed.
pub(crate) struct SetDisk {
    /// Id or name.
    pub(crate) disk: String,
    /// The call's body.
    pub(crate) options: sealblk_api::SetDisk,
}

impl Operation for SetDisk {
    const CALL: &'static str = "disk.set";
    type Decided = DiskRow;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<DiskRow> {
        let disk = find::disk(tx, caller, &self.disk).await?;
        let sealblk_api::SetDisk {
            name,
            encrypted,
            key,
            shared,
            on_full,
        } = &self.options;
        let fixed = Fixed {
            object: Object::Disk,
            name: &disk.name,
            encrypted: disk.encrypted,
            key: disk.key.as_deref(),
        };
        fixed.check(caller, tx, *encrypted, key.as_deref()).await?;
        check_shared(&disk, *shared)?;
        if let Some(wanted) = on_full {
            disks::set_on_full(tx, &disk.id, on_full::choose(Some(wanted))?).await?;
        }
        if let Some(name) = name.as_ref().filter(|name| **name != disk.name) {
            id::check_name(name)?;
            check_idle(tx, &disk.id).await?;
            if disks::find(tx, &caller.account, name).await?.is_some() {
                let text = format!("there is a disk {name:?} already: choose another name");
                return Err(Error::new(Code::NameTaken, text));
            }
            disks::set_name(tx, &disk.id, name).await?;
        } else if [
            encrypted.is_none(),
            key.is_none(),
            shared.is_none(),
            on_full.is_none(),
        ] == [true; 4]
            && name.is_none()
        {
            let text = "nothing is to be changed: give a name, or what to do on a full host";
            return Err(Error::new(Code::InvalidRequest, text));
        }
        Ok(disk)
    }

    async fn act(&self, kms: &Kms, _: &Caller, disk: DiskRow) -> Result<Disk> {
        if let (Some(wanted), Some(attachment)) = (&self.options.on_full, &disk.attachment) {
            kms.supervisor
                .set_on_full(attachment, on_full_of(on_full::choose(Some(wanted))?))
                .await;
        }
        if self.options.name.is_some() && disk.attachment.is_some() {
            service_plan::name_sockets(kms, &disk.id).await;
        }
        views::disk::after(kms, &disk.id).await
    }
}

/// Rule D09. To ask for what it is changes nothing.
fn check_shared(disk: &DiskRow, wanted: Option<bool>) -> Result<()> {
    if wanted.is_none_or(|wanted| wanted == disk.shared) {
        return Ok(());
    }
    let (is, other) = if disk.shared {
        ("shared", "one that is not")
    } else {
        ("not shared", "a shared one")
    };
    let text = format!(
        "disk {} is {is}, and stays so: create {other} from a snapshot of it",
        disk.name
    );
    Err(Error::new(Code::SharedFixed, text))
}
