//! `DELETE /v1/instances/{instance}`.

use super::instance_show::answer;
use super::{Kms, Operation, find_instance};
use crate::api::types::Instance;
use crate::audit::Caller;
use crate::catalogue::Write;
use crate::catalogue::instances::{self, InstanceRow};
use crate::error::{Code, Error, Result};

/// Removes an instance to which no disk is attached.
pub(crate) struct RemoveInstance {
    /// Id or name.
    pub(crate) instance: String,
}

impl Operation for RemoveInstance {
    const CALL: &'static str = "instance.remove";
    type Decided = InstanceRow;
    type Answer = Instance;

    fn object(&self) -> &str {
        &self.instance
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<InstanceRow> {
        let row = find_instance(tx, caller, &self.instance).await?;
        let disks = instances::disks(tx, &row.id).await?;
        if !disks.is_empty() {
            let text = format!(
                "disks are attached to {}: detach {} first",
                row.name,
                disks.join(", ")
            );
            return Err(Error::new(Code::InstanceInUse, text));
        }
        instances::delete(tx, &row.id).await?;
        Ok(row)
    }

    async fn act(&self, _: &Kms, _: &Caller, row: InstanceRow) -> Result<Instance> {
        Ok(answer(row, Vec::new()))
    }
}
