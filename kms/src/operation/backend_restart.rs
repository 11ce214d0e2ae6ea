//! `POST /v1/disks/{disk}/restart` (rule A06: no new use of the key, so not metered, and audited).

use super::{Kms, Operation, check_idle, disk_show, find_disk};
use crate::api::types::Disk;
use crate::audit::Caller;
use crate::catalogue::Write;
use crate::error::{Code, Error, Result};

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
        let disk = find_disk(tx, caller, &self.disk).await?;
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
        let _turn = kms.supervisor.turn(&decided.disk).await;
        kms.supervisor.replace(&decided.attachment).await?;
        disk_show::after(kms, &decided.disk).await
    }
}
