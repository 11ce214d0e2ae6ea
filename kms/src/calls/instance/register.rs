//! `POST /v1/instances` (rule D11: [`new_instance`]; rule I01: [`crate::rules::system_disk`]).

use std::sync::Arc;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::calls::idempotency::Creates;
use crate::catalogue::Write;
use crate::catalogue::counts::Counted;
use crate::catalogue::instances::{self, InstanceRow};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::aside::off_runtime;
use crate::host::backends::vhost_socket::SocketAccess;
use crate::id::{self, Kind};
use crate::intents::new_instance::{self, NewInstance};
use crate::rules::quota;
use crate::views;
use crate::views::instance::answer;
use crate::volumes::machine_path::{check_path, check_permitted};
use crate::volumes::socket_choice;
use crate::{clock, limits};
use sealblk_api::{RegisterInstance, RegisteredInstance};

impl Operation for RegisterInstance {
    const CALL: &'static str = "instance.register";
    type Decided = NewInstance;
    type Answer = RegisteredInstance;

    fn object(&self) -> &str {
        &self.name
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        if self.disks.len() > limits::DISKS_WITH_INSTANCE {
            let text = format!(
                "{} disks: at most {} come with an instance, create the others afterwards",
                self.disks.len(),
                limits::DISKS_WITH_INSTANCE
            );
            return Err(Error::new(Code::TooMany, text));
        }
        check_permitted(kms, caller, self.vm_socket.as_deref()).await?;
        if let Some(owner) = self.socket_owner.take() {
            self.socket_owner = Some(off_runtime(move || socket_choice::by_number(&owner)).await?);
        }
        for disk in &mut self.disks {
            if disk.zone.is_none() && disk.snapshot.is_none() && disk.image.is_none() {
                disk.zone.clone_from(&self.zone);
            }
            disk.prepare(kms, caller).await?;
        }
        Ok(())
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<NewInstance> {
        id::check_name(&self.name)?;
        let zone = self.zone.as_ref().unwrap_or(&kms.meta.zone);
        id::check_name(zone)?;
        check_path(
            self.vm_socket.as_deref(),
            limits::SOCKET_PATH_BYTES,
            "the virtual machine's socket",
        )?;
        check_path(self.boot_disk.as_deref(), limits::PATH_BYTES, "the boot disk")?;
        quota::check(kms, tx, &caller.account, Counted::Instances).await?;
        if instances::has_name(tx, &caller.account, &self.name).await? {
            let text = format!(
                "there is an instance {:?} already: choose another name",
                self.name
            );
            return Err(Error::new(Code::NameTaken, text));
        }
        let (owner, mode) = (self.socket_owner.as_deref(), self.socket_mode.as_deref());
        let access = socket_choice::access(owner, mode, SocketAccess::OWN)?;
        let row = InstanceRow {
            socket_uid: access.uid,
            socket_gid: access.gid,
            socket_mode: mode.map(|_| access.mode),
            id: id::new(Kind::Instance)?,
            account: caller.account.clone(),
            name: self.name.clone(),
            zone: zone.clone(),
            local_storage: self.local_storage,
            bare_metal: self.bare_metal,
            vm_socket: self.vm_socket.clone(),
            boot_disk: self.boot_disk.clone(),
            made: self.disks.is_empty() && self.system_disk.is_none(),
            created: clock::now(),
        };
        instances::insert(tx, &row).await?;
        caller.facts.note("instance", row.id.as_str());
        let system = match &self.system_disk {
            Some(wanted) => Some(new_instance::choose_system_disk(kms, caller, tx, &row, wanted).await?),
            None => None,
        };
        let wanted = system.iter().map(|chosen| &chosen.disk).chain(&self.disks);
        let mut disks = Vec::new();
        for disk in wanted {
            disks.push(kms.decide_part(caller, tx, disk).await?);
        }
        let made = disks
            .iter()
            .map(|intent| intent.disk.as_str())
            .collect::<Vec<_>>();
        caller.facts.note_if("disks", (!made.is_empty()).then_some(made));
        new_instance::hand_on_made_key(tx, &mut disks).await?;
        if let (Some(_), Some(intent)) = (&system, disks.first()) {
            new_instance::bind_system_disk(kms, tx, &row, &intent.disk).await?;
        }
        let source = system.and_then(|chosen| chosen.source);
        Ok(NewInstance { row, disks, source })
    }

    async fn act(&self, kms: &Kms, caller: &Caller, decided: NewInstance) -> Result<RegisteredInstance> {
        if !decided.disks.is_empty()
            && let Err(error) = new_instance::make(kms, &decided).await
        {
            new_instance::undo(kms, caller, Self::CALL, &decided, &error).await?;
            return Err(error);
        }
        let NewInstance { row, disks, .. } = decided;
        let mut new_disks = Vec::with_capacity(disks.len());
        for intent in &disks {
            new_disks.push(views::disk::after(kms, &intent.disk).await?);
        }
        let system_disk = self.system_disk.as_ref();
        let system_disk = system_disk.and_then(|_| Some(disks.first()?.disk.clone()));
        Ok(RegisteredInstance {
            instance: answer(row, system_disk, Vec::new()),
            new_disks,
        })
    }
}

impl Creates for RegisterInstance {
    fn created(decided: &NewInstance) -> &str {
        &decided.row.id
    }

    async fn present(kms: &Arc<Kms>, caller: &Caller, id: &str) -> Result<RegisteredInstance> {
        Ok(RegisteredInstance {
            instance: views::instance::show(kms, caller, id).await?,
            new_disks: Vec::new(),
        })
    }
}
