//! `DELETE /v1/instances/{instance}` (rule I01).

use crate::audit::{self, Caller, Decision};
use crate::calls::Operation;
use crate::catalogue::instances::{self, InstanceRow};
use crate::catalogue::intents::IntentRow;
use crate::catalogue::{Write, disks};
use crate::context::{Kms, facts, find};
use crate::error::{Code, Error, Result};
use crate::intents::delete_disk;
use crate::views::instance::answer;
use sealblk_api::Instance;

/// Removes an instance to which no disk is attached, and its system disk with it.
pub(crate) struct RemoveInstance {
    /// Id or name.
    pub(crate) instance: String,
}

impl Operation for RemoveInstance {
    const CALL: &'static str = "instance.remove";
    const FREES: bool = true;
    type Decided = (InstanceRow, Option<IntentRow>);
    type Answer = Instance;

    fn object(&self) -> &str {
        &self.instance
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        let system_disk = {
            let mut db = kms.catalogue.read().await?;
            let row = find::instance(&mut db, caller, &self.instance).await?;
            disks::system_of(&mut db, &row.id).await?
        };
        match system_disk {
            Some(disk) => delete_disk::look(kms, &disk).await,
            None => Ok(()),
        }
    }

    async fn decide(
        &self,
        kms: &Kms,
        caller: &Caller,
        tx: &mut Write,
    ) -> Result<(InstanceRow, Option<IntentRow>)> {
        let row = find::instance(tx, caller, &self.instance).await?;
        let disks = instances::disks(tx, &row.id).await?;
        if !disks.is_empty() {
            let names: Vec<_> = disks.into_iter().map(|(_, name)| name).collect();
            let text = format!(
                "disks are attached to {}: detach {} first",
                row.name,
                names.join(", ")
            );
            return Err(Error::new(Code::InstanceInUse, text));
        }
        let Some(disk) = disks::system_of(tx, &row.id).await? else {
            instances::delete(tx, &row.id).await?;
            return Ok((row, None));
        };
        let intent = delete_disk::open(kms, caller, tx, &disk).await?;
        caller.facts.note("disk", disk.id.as_str());
        let part = caller.apart();
        facts::disk(&part.facts, &disk);
        part.facts.note("instance", row.id.as_str());
        audit::append(tx, &part, intent.work.call(), &disk.id, Decision::Allowed).await?;
        instances::set_unmade(tx, &row.id).await?;
        Ok((row, Some(intent)))
    }

    async fn act(
        &self,
        kms: &Kms,
        _: &Caller,
        (row, intent): (InstanceRow, Option<IntentRow>),
    ) -> Result<Instance> {
        let system_disk = intent.as_ref().map(|intent| intent.disk.clone());
        if let Some(intent) = &intent {
            delete_disk::carry_out(kms, intent, std::future::ready(Ok(()))).await?;
        }
        Ok(answer(row, system_disk, Vec::new()))
    }
}
