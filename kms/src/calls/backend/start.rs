//! `POST /v1/disks/{disk}/start` (rule A06: no new use of the key, so not metered, and audited).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::{Write, services};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::rules::available::check_idle;
use crate::views;
use sealblk_api::Disk;

/// Has an attached disk served that is not since the catalogue was restored from a backup.
pub(crate) struct StartBackend {
    /// Id or name.
    pub(crate) disk: String,
}

/// What is to be started.
pub(crate) struct Decided {
    disk: String,
    service: String,
    /// Whether the disk is not served yet because of the restore.
    was_held: bool,
}

impl Operation for StartBackend {
    const CALL: &'static str = "backend.start";
    type Decided = Decided;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<Decided> {
        let disk = find::disk(tx, caller, &self.disk).await?;
        check_idle(tx, &disk.id).await?;
        let Some(service) = services::of_disk(tx, &disk.id).await? else {
            let text = format!("disk {} is not attached", disk.name);
            return Err(Error::new(Code::NotAttached, text));
        };
        let was_held = services::release(tx, &service.id).await?;
        Ok(Decided {
            was_held,
            disk: disk.id,
            service: service.id,
        })
    }

    async fn act(&self, kms: &Kms, _: &Caller, decided: Decided) -> Result<Disk> {
        let _lock = kms.supervisor.lock(&decided.disk).await;
        if decided.was_held {
            // If it cannot be started now, it is tried again, as after any start of the KMS.
            let started = kms.supervisor.start(&decided.service).await;
            kms.supervisor.supervise(&decided.service);
            started?;
        }
        views::disk::after(kms, &decided.disk).await
    }
}
