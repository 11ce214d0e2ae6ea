//! `sealctl instance`.

use clap::{ArgAction, Args, Subcommand};
use sealblk_api::client::{Client, Patience, route};
use sealblk_api::{
    self as api, CreateDisk, InstanceList, RegisterInstance, RegisteredInstance, SetInstance, SystemDisk,
};

use super::disk_spec;
use crate::confirm::Confirm;
use crate::failure::Failure;
use crate::output::{Answer, Block, Column, fixed, flexible, or_dash, yes_no};
use crate::values::{object, path};

const REGISTER_HELP: &str = "\
An encrypted disk is not attached where its data could be left in the clear (rule A03): to an instance that is declared \
to have local storage, or whose virtual machine, if its socket is known and it runs, can write to another device of its \
host than the declared boot disk and the disks that are served here.

QMP serves one client at a time: give the virtual machine a QMP socket for this alone.

A system disk begins as an image, is attached to its instance alone, and is deleted with it (rule I01). The profile says who \
decides whether it is encrypted: nobody, the image, or you.

Examples:
  sealctl instance register web
  sealctl instance register db --zone z2 --local-storage
  sealctl instance register app --vm-socket /run/app/qmp.sock --boot-disk /var/lib/app/boot.qcow2
  sealctl instance register shop --disk name=shop-data,size=10GiB --disk name=shop-logs,size=1GiB,encrypted=false
  sealctl instance register shop --system-disk image=debian-12,size=20GiB";

const REMOVE_HELP: &str = "\
Its system disk is deleted with it (rule I01): take a snapshot before if its data is needed, which stays. Other disks stay.

Example:
  sealctl instance remove web";

const SET_HELP: &str = "\
While encrypted disks are attached, nothing is declared with which they could not have been attached (rules A03, A04): \
then a virtual machine that runs is asked what it can write to, as at an attach.

Examples:
  sealctl instance set web --name shop
  sealctl instance set web --vm-socket /run/web/qmp.sock --boot-disk /var/lib/web/boot.qcow2
  sealctl instance set web --local-storage=false --no-boot-disk";

/// Instances that disks are attached to.
#[derive(Debug, Subcommand)]
pub(crate) enum Instance {
    /// Register an instance, and declare what it has.
    #[command(after_help = REGISTER_HELP)]
    Register(Box<Register>),
    /// List instances.
    #[command(after_help = "Example:\n  sealctl instance list")]
    List,
    /// Show one instance and the disks attached to it.
    #[command(after_help = "Example:\n  sealctl instance show web")]
    Show {
        /// Id or name of the instance.
        #[arg(value_parser = object)]
        instance: String,
    },
    /// Rename an instance, or declare something else of it. What is not given stays.
    #[command(after_help = SET_HELP)]
    Set(Set),
    /// Remove an instance, and its system disk for ever. Refused while disks are attached to it.
    #[command(after_help = REMOVE_HELP)]
    Remove {
        /// Id or name of the instance.
        #[arg(value_parser = object)]
        instance: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// Arguments of `instance register`.
#[derive(Args, Debug)]
pub(crate) struct Register {
    /// Name, unique in the account: 1 to 64 letters, digits, dots, hyphens and underscores.
    name: String,
    /// Zone of the instance [default: the zone of the KMS]. Disks of other zones cannot be attached (rule A01).
    #[arg(long)]
    zone: Option<String>,
    /// It has local storage. Encrypted disks cannot be attached to it (rule A03).
    #[arg(long)]
    local_storage: bool,
    /// It is a bare-metal server. Some profiles refuse encrypted disks there (rule A04).
    #[arg(long)]
    bare_metal: bool,
    /// Socket of its virtual machine: QMP, or the API of cloud-hypervisor. If it runs when an encrypted disk is attached,
    /// it is asked what it can write to (rule A03).
    #[arg(long, value_name = "PATH", value_parser = path)]
    vm_socket: Option<String>,
    /// File or device of the host that its virtual machine boots from, and may write to.
    #[arg(long, value_name = "PATH", value_parser = path)]
    boot_disk: Option<String>,
    /// Owner of the vhost-user sockets of its disks, where `attach` does not say [default: that of `sealblk-kms serve`].
    #[arg(long = "vhost-socket-owner", value_name = "USER[:GROUP]")]
    socket_owner: Option<String>,
    /// Mode of the vhost-user sockets of its disks, octal, where `attach` does not say [default: that of `sealblk-kms serve`].
    #[arg(long = "vhost-socket-mode", value_name = "MODE")]
    socket_mode: Option<String>,
    /// Disk to create with it; may be given several times. Made are all of them, or nothing at all (rule D11). SPEC is
    /// name=NAME,size=SIZE and, as the options of `disk create`: encrypted=, type=, kind=, key=, store=, snapshot=,
    /// image=, path=, zone=. No value can have a comma.
    #[arg(long = "disk", value_name = "SPEC", value_parser = disk_spec::parse)]
    disks: Vec<CreateDisk>,
    /// Its system disk, created with it (rules I01, D11). SPEC is image=IMAGE and, as the options of `disk create`: name=
    /// [default: the instance's with -system], size=, encrypted=, key=, type=.
    #[arg(long, value_name = "SPEC", value_parser = disk_spec::parse_system)]
    system_disk: Option<SystemDisk>,
}

/// Arguments of `instance set`.
#[derive(Args, Debug)]
pub(crate) struct Set {
    /// Id or name of the instance.
    #[arg(value_parser = object)]
    instance: String,
    /// Its new name, unique in the account.
    #[arg(long, required_unless_present_any = ["local_storage", "bare_metal", "vm_socket", "no_vm_socket", "boot_disk",
        "no_boot_disk", "socket_owner", "socket_mode", "no_vhost_socket"])]
    name: Option<String>,
    /// Whether it has local storage (rule A03).
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "true|false", hide_possible_values = true)]
    local_storage: Option<bool>,
    /// Whether it is a bare-metal server (rule A04).
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "true|false", hide_possible_values = true)]
    bare_metal: Option<bool>,
    /// Socket of its virtual machine: QMP, or the API of cloud-hypervisor.
    #[arg(long, value_name = "PATH", value_parser = path)]
    vm_socket: Option<String>,
    /// No socket of its virtual machine is known.
    #[arg(long, conflicts_with = "vm_socket")]
    no_vm_socket: bool,
    /// File or device of the host that its virtual machine boots from, and may write to.
    #[arg(long, value_name = "PATH", value_parser = path)]
    boot_disk: Option<String>,
    /// It may write to no boot disk.
    #[arg(long, conflicts_with = "boot_disk")]
    no_boot_disk: bool,
    /// Owner of the vhost-user sockets of disks that are attached from now on, where `attach` does not say.
    #[arg(long = "vhost-socket-owner", value_name = "USER[:GROUP]")]
    socket_owner: Option<String>,
    /// Mode of the vhost-user sockets of disks that are attached from now on, octal, where `attach` does not say.
    #[arg(long = "vhost-socket-mode", value_name = "MODE")]
    socket_mode: Option<String>,
    /// Owner and mode of sockets are as `sealblk-kms serve` has them.
    #[arg(long, conflicts_with_all = ["socket_owner", "socket_mode"])]
    no_vhost_socket: bool,
}

impl Instance {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        match self {
            Instance::Register(register) => {
                let path = route(&["instances"]);
                let body = register.body();
                let patience = if body.disks.is_empty() && body.system_disk.is_none() {
                    Patience::Change
                } else {
                    Patience::Endless
                };
                let registered: RegisteredInstance = client.post(&path, &body, patience).await?;
                let made = registered.new_disks.iter();
                let made =
                    made.map(|disk| Block::Line(format!("disk {} ({}) is created", disk.name, disk.id)));
                let blocks = fields(&registered.instance).into_iter().chain(made).collect();
                Answer::new(&registered, blocks)
            }
            Instance::List => {
                let list: InstanceList = client.list(&route(&["instances"])).await?;
                Answer::new(&list, vec![Block::table(&list.instances, COLUMNS)])
            }
            Instance::Show { instance } => {
                let instance: api::Instance = client.get(&route(&["instances", &instance])).await?;
                Answer::new(&instance, fields(&instance))
            }
            Instance::Set(set) => {
                let path = route(&["instances", &set.instance]);
                let instance: api::Instance = client.patch(&path, &set.body()).await?;
                Answer::new(&instance, fields(&instance))
            }
            Instance::Remove {
                mut instance,
                confirm,
            } => {
                if confirm.is_needed() {
                    let found: api::Instance = client.get(&route(&["instances", &instance])).await?;
                    if let Some(disk) = &found.system_disk {
                        let lost = format!(
                            "Instance {} ({}) goes, and its system disk {disk} for ever, with all its data but its snapshots",
                            found.name, found.id
                        );
                        Confirm::ask(client, &lost).await?;
                        instance = found.id;
                    }
                }
                let instance: api::Instance = client.delete(&route(&["instances", &instance])).await?;
                let text = format!("instance {} ({}) is removed", instance.name, instance.id);
                let disk = instance.system_disk.as_ref();
                let disk = disk.map(|disk| format!("its system disk {disk} is deleted"));
                let lines = std::iter::once(text).chain(disk).map(Block::Line);
                Answer::new(&instance, lines.collect())
            }
        }
    }
}

impl Register {
    fn body(self) -> RegisterInstance {
        RegisterInstance {
            name: self.name,
            zone: self.zone,
            local_storage: self.local_storage,
            bare_metal: self.bare_metal,
            vm_socket: self.vm_socket,
            boot_disk: self.boot_disk,
            socket_owner: self.socket_owner,
            socket_mode: self.socket_mode,
            disks: self.disks,
            system_disk: self.system_disk,
        }
    }
}

impl Set {
    fn body(self) -> SetInstance {
        SetInstance {
            name: self.name,
            local_storage: self.local_storage,
            bare_metal: self.bare_metal,
            vm_socket: changed(self.vm_socket, self.no_vm_socket),
            boot_disk: changed(self.boot_disk, self.no_boot_disk),
            socket_owner: changed(self.socket_owner, self.no_vhost_socket),
            socket_mode: changed(self.socket_mode, self.no_vhost_socket),
        }
    }
}

/// Nothing where it stays as it is.
fn changed(path: Option<String>, none: bool) -> Option<Option<String>> {
    if none { Some(None) } else { path.map(Some) }
}

const COLUMNS: &[Column<api::Instance>] = &[
    fixed("ID", |instance| instance.id.clone()),
    flexible("NAME", |instance| instance.name.clone()),
    flexible("ZONE", |instance| instance.zone.clone()),
    fixed("LOCAL STORAGE", |instance| yes_no(instance.local_storage)),
    fixed("BARE METAL", |instance| yes_no(instance.bare_metal)),
    fixed("DISKS", |instance| instance.disks.len().to_string()),
];

/// The names of its disks, or their ids of a daemon of an earlier version.
fn disks(instance: &api::Instance) -> &[String] {
    match instance.disk_names.len() == instance.disks.len() {
        true => &instance.disk_names,
        false => &instance.disks,
    }
}

fn fields(instance: &api::Instance) -> Vec<Block> {
    vec![Block::Fields(vec![
        ("id", instance.id.clone()),
        ("name", instance.name.clone()),
        ("zone", instance.zone.clone()),
        ("local storage", yes_no(instance.local_storage)),
        ("bare metal", yes_no(instance.bare_metal)),
        ("VM socket", or_dash(&instance.vm_socket)),
        ("boot disk", or_dash(&instance.boot_disk)),
        ("socket owner", or_dash(&instance.socket_owner)),
        ("socket mode", or_dash(&instance.socket_mode)),
        ("system disk", or_dash(&instance.system_disk)),
        ("disks", disks(instance).join(" ")),
        ("created", instance.created.clone()),
    ])]
}
