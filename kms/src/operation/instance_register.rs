//! `POST /v1/instances`.

use super::instance_show::answer;
use super::{Kms, Operation};
use crate::api::types::{Instance, RegisterInstance};
use crate::audit::Caller;
use crate::catalogue::Write;
use crate::catalogue::instances::{self, InstanceRow};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::{clock, limits};

impl Operation for RegisterInstance {
    const CALL: &'static str = "instance.register";
    type Decided = InstanceRow;
    type Answer = Instance;

    fn object(&self) -> &str {
        &self.name
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<InstanceRow> {
        id::check_name(&self.name)?;
        let zone = self.zone.as_ref().unwrap_or(&kms.meta.zone);
        id::check_name(zone)?;
        check_path(self.vm_socket.as_deref(), limits::SOCKET_PATH_BYTES, "the virtual machine's socket")?;
        check_path(self.boot_disk.as_deref(), limits::PATH_BYTES, "the boot disk")?;
        if instances::find(tx, &caller.account, &self.name).await?.is_some() {
            let text = format!(
                "there is an instance {:?} already: choose another name",
                self.name
            );
            return Err(Error::new(Code::NameTaken, text));
        }
        let row = InstanceRow {
            id: id::new(Kind::Instance)?,
            account: caller.account.clone(),
            name: self.name.clone(),
            zone: zone.clone(),
            local_storage: self.local_storage,
            bare_metal: self.bare_metal,
            vm_socket: self.vm_socket.clone(),
            boot_disk: self.boot_disk.clone(),
            created: clock::now(),
        };
        instances::insert(tx, &row).await?;
        Ok(row)
    }

    async fn act(&self, _: &Kms, _: &Caller, row: InstanceRow) -> Result<Instance> {
        Ok(answer(row, Vec::new()))
    }
}

/// A path on the host, of what may not be there yet.
fn check_path(path: Option<&str>, most: usize, what: &str) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    if !path.starts_with('/') || path.contains('\0') || path.len() > most {
        let text = format!("{path:?} cannot be {what}: give an absolute path of at most {most} bytes");
        return Err(Error::new(Code::InvalidPath, text));
    }
    Ok(())
}
