//! `POST /v1/disks/{disk}/restart` (rule A06: no new use of the key, so not metered, and audited).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::rules::available::check_idle;
use crate::views;
use sealblk_api::Disk;

/// Has a new process, of the program as it is installed now, take over an attached disk from the one that serves it.
pub(crate) struct RestartBackend {
    /// Id or name.
    pub(crate) disk: String,
}

/// What is to be restarted.
pub(crate) struct Decided {
    disk: String,
    attachment: String,
}

impl Operation for RestartBackend {
    const CALL: &'static str = "backend.restart";
    const FREES: bool = true;
    type Decided = Decided;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<Decided> {
        let disk = find::disk(tx, caller, &self.disk).await?;
        check_idle(tx, &disk.id).await?;
        let Some(attachment) = disk.attachment else {
            let text = format!("disk {} is not attached", disk.name);
            return Err(Error::new(Code::NotAttached, text));
        };
        Ok(Decided {
            disk: disk.id,
            attachment,
        })
    }

    async fn act(&self, kms: &Kms, _: &Caller, decided: Decided) -> Result<Disk> {
        let _lock = kms.supervisor.lock(&decided.disk).await;
        kms.supervisor.replace(&decided.attachment).await?;
        views::disk::after(kms, &decided.disk).await
    }
}
