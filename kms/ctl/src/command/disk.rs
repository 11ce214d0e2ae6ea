//! `sealctl disk`.

use clap::{ArgAction, ArgGroup, Args, Subcommand, ValueEnum};
use sealblk_api::client::{Client, Patience, route};
use sealblk_api::{self as api, CreateDisk, DiskAttachments, DiskCheck};

use super::attach;
use super::bin::{Delete, Restore};
use super::copy::{self, CopyDisk};
use super::disk_fields::fields;
use super::disk_list;
use super::encryption::Encryption;
use super::form::Form;
use super::immutable::Immutable;
use super::qemu::{self, Qemu};
use super::store::{Store, store_name};
use super::transfer::{ExportDisk, ImportDisk};
use super::watch::Watch;
use crate::confirm::Confirm;
use crate::failure::Failure;
use crate::output::{Answer, Block, Column, fixed, flexible, name_or, yes_no};
use crate::size;
use crate::values::{Format, object, path};

const CREATE_HELP: &str = "\
Sizes are whole numbers of bytes or of KiB, MiB, GiB, TiB (K, M, G, T for short), multiples of 512, at most 64TiB.

A layered disk takes space as it is written, and reads zeros where it was not. A raw disk takes all of it at \
once; its sectors that were never written read as noise if it is encrypted, as with dm-crypt, and zeros if it is plain. \
Whether a disk is encrypted is decided here and never changes (rule D03).

A disk from a snapshot or an image has its data, key, encryption and type, and its size unless a larger one is \
asked for. It takes no time and no space: both go on with what they share.

A shared disk can be attached to up to 16 instances. Their guests must know of each other: format it with a cluster file \
system such as GFS2 or OCFS2, since two guests that write to an ordinary one destroy it. Whether a disk is shared never \
changes (rule D09); one from a snapshot or an image is if it is created so.

Examples:
  sealctl disk create data --size 10GiB
  sealctl disk create test --snapshot data/before-upgrade
  sealctl disk create root --image debian-12
  sealctl disk create cluster --size 10GiB --shared
  sealctl disk create scratch --size 512M --encrypted=false
  sealctl disk create cache --size 512M --encrypted=false --kind local --type basic
  sealctl disk create fast --size 100G --store raw --path /dev/vg0/fast";

const SHOW_HELP: &str = "\
The serial is what the guest reads as the disk's serial number; Linux has it as /dev/disk/by-id/virtio-SERIAL. With -o json \
each attachment has the arguments for QEMU and cloud-hypervisor, as `sealctl attach` gives them.

Examples:
  sealctl disk show data
  sealctl -o json disk show data
  sealctl disk show data --watch";

const ATTACHMENTS_HELP: &str = "\
--format prints what a virtual machine needs, as `sealctl attach` does, for each attachment.

Examples:
  sealctl disk attachments data
  sealctl disk attachments data web --format libvirt
  eval \"qemu-system-x86_64 -m 4G … $(sealctl disk attachments data web --format qemu)\"";

const SET_HELP: &str = "\
Encryption and key of a disk, and whether it is shared, never change: asking for others is refused (rules D03, K09, D09). \
Create a disk as you need it, and copy the data to it.

When the host has no room for what the guest writes, the write fails (--on-full error), or waits until there is \
room (--on-full stop). `disk show` warns of both.

Examples:
  sealctl disk set data --name old-data
  sealctl disk set data --on-full stop";

const REINIT_HELP: &str = "\
The disk reads zeros afterwards. It keeps its id, its size and its snapshots.

Refused while the disk is attached: its guest would go on with what it has in its memory (rule S05). --force does it \
all the same with a layered disk.

A layered disk is empty at once. A raw one is written whole, with enciphered zeros if it is encrypted, and compared: that takes as long \
as a copy to it, goes on if this command is stopped, and over crashes. `disk show` tells how far it has come, and `disk copy --cancel` \
ends it, with a part of the old data left.

Examples:
  sealctl disk reinit data
  sealctl disk reinit data --force";

const RESIZE_HELP: &str = "\
A disk only becomes larger (rule D06); what is new reads zeros. The guest sees the new size at once where its virtual \
machine passes it on, otherwise after the disk is attached again. Then enlarge the partition and the file system in it.

Example:
  sealctl disk resize data --size 20GiB";

const CHECK_HELP: &str = "\
Reads all metadata of a layered disk and of its snapshots, and says what is wrong with it; the data is not looked at. \
A disk may be attached meanwhile. --repair gives back what nothing uses and mends what the rest of the metadata tells; \
for that it must be detached.

Examples:
  sealctl disk check data
  sealctl disk check data --repair";

/// Disks.
#[derive(Debug, Subcommand)]
pub(crate) enum Disk {
    /// Create a disk: empty and encrypted unless asked otherwise, or from a snapshot or an image.
    #[command(after_help = CREATE_HELP)]
    Create(Create),
    /// List disks.
    #[command(after_help = disk_list::HELP)]
    List(disk_list::List),
    /// Show one disk.
    #[command(after_help = SHOW_HELP)]
    Show {
        /// Id or name of the disk.
        #[arg(value_parser = object)]
        disk: String,
        #[command(flatten)]
        watch: Watch,
        #[command(flatten)]
        qemu: Qemu,
    },
    /// List a disk's attachments: the instances that have it, the sockets that it is served on, and what a virtual machine needs.
    #[command(after_help = ATTACHMENTS_HELP)]
    Attachments {
        /// Id or name of the disk.
        #[arg(value_parser = object)]
        disk: String,
        /// Id or name of an instance: only its attachment.
        #[arg(value_parser = object)]
        instance: Option<String>,
        #[command(flatten)]
        form: Form,
    },
    /// Rename a disk, or change what is done when the host is full.
    #[command(after_help = SET_HELP)]
    Set {
        /// Id or name of the disk.
        #[arg(value_parser = object)]
        disk: String,
        /// Its new name, unique in the account.
        #[arg(long, required_unless_present_any = ["encrypted", "key", "shared", "on_full"])]
        name: Option<String>,
        #[command(flatten)]
        immutable: Immutable,
        /// Whether several instances can have it at once: never changes (rule D09).
        #[arg(
            long,
            action = ArgAction::Set,
            num_args = 0..=1,
            require_equals = true,
            default_missing_value = "true",
            value_name = "true|false",
            hide_possible_values = true
        )]
        shared: Option<bool>,
        /// What becomes of writes that the host has no room for; under a guest from now on.
        #[arg(long, value_enum)]
        on_full: Option<OnFull>,
    },
    /// Make a disk larger.
    #[command(after_help = RESIZE_HELP)]
    Resize {
        /// Id or name of the disk.
        #[arg(value_parser = object)]
        disk: String,
        /// Its new size, such as 20GiB.
        #[arg(long, value_parser = size::parse)]
        size: u64,
    },
    /// Make a disk empty.
    #[command(after_help = REINIT_HELP)]
    Reinit {
        /// Id or name of the disk.
        #[arg(value_parser = object)]
        disk: String,
        /// Also while it is attached, if it is layered.
        #[arg(long)]
        force: bool,
        /// Do not wait for the end, if it is raw.
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Copy the data of a disk to another disk: encrypted or not, either way.
    Copy(CopyDisk),
    /// Write the data of a disk to a file: plain and raw.
    Export(ExportDisk),
    /// Create a disk with the data of a raw or qcow2 image.
    Import(ImportDisk),
    /// Examine the metadata of a disk's store.
    #[command(after_help = CHECK_HELP)]
    Check {
        /// Id or name of the disk.
        #[arg(value_parser = object)]
        disk: String,
        /// Repair what can be derived.
        #[arg(long)]
        repair: bool,
    },
    /// Delete a disk: it can be restored for some days. Refused while it is attached.
    Delete(Delete),
    /// Restore a deleted disk.
    Restore(Restore),
}

/// Arguments of `disk create`.
#[derive(Args, Debug)]
#[command(mut_arg("encrypted", |arg| arg.help("Whether its data is encrypted [default: true, or as the snapshot or the image is]")))]
#[command(group(ArgGroup::new("origin").required(true).multiple(true).args(["size", "snapshot", "image"])))]
pub(crate) struct Create {
    /// Name, unique in the account: 1 to 64 letters, digits, dots, hyphens and underscores.
    name: String,
    /// Size, such as 1GiB, 512M or 4096 [default: the snapshot's or the image's].
    #[arg(long, value_parser = size::parse)]
    size: Option<u64>,
    /// Snapshot that it begins as: id, DISK/NAME, or the name if no other disk has a snapshot of that name.
    #[arg(long, value_parser = object)]
    snapshot: Option<String>,
    /// Image that it begins as: id or name, or ACCOUNT/NAME of one that another account shares.
    #[arg(long, value_parser = object, conflicts_with = "snapshot")]
    image: Option<String>,
    #[command(flatten)]
    encryption: Encryption,
    /// How its bytes are stored: with snapshots, or flat [default: layered].
    #[arg(long, value_enum)]
    store: Option<Store>,
    /// File or block device to use. A missing file is created; a file that is not empty is refused, and so is a device
    /// whose first MiB is not all zero. For a device give a name that does not change, as in /dev/disk/by-id [default:
    /// a file in the state directory].
    #[arg(long, value_name = "FILE_OR_BLOCK_DEVICE", value_parser = path)]
    path: Option<String>,
    /// Zone of the disk [default: the zone of the KMS].
    #[arg(long)]
    zone: Option<String>,
    /// Id or name of the key that wraps its data key [default: the service key].
    #[arg(long)]
    key: Option<String>,
    /// Where it lies: a local disk is never encrypted (rule D02) [default: cloud, or the snapshot's or the image's].
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Its type; the profile says which types can be encrypted (rule D02) [default: ssd, or the snapshot's or the image's].
    #[arg(long = "type", value_enum)]
    disk_type: Option<Type>,
    /// What it is for. A system disk exists only with its instance (rule I01): see `instance register` [default: data].
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// Several instances can have it at once (rule D09); the profile says which types can be encrypted then (rule D02).
    #[arg(long)]
    shared: bool,
    /// What becomes of writes that the host has no room for [default: error].
    #[arg(long, value_enum)]
    on_full: Option<OnFull>,
}

/// What becomes of writes that the host has no room for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OnFull {
    /// They fail in the guest.
    Error,
    /// They are held until there is room.
    Stop,
}

/// What a disk is for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Role {
    Data,
    System,
}

/// Where a disk lies.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    Cloud,
    Local,
}

/// Types of disks.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Type {
    Basic,
    Efficiency,
    Ssd,
    Essd,
}

/// As the API has it.
fn word<T: ValueEnum>(value: T) -> Option<String> {
    value.to_possible_value().map(|value| value.get_name().to_owned())
}

impl Disk {
    pub(crate) async fn run(self, client: &mut Client, format: Format) -> Result<Answer, Failure> {
        match self {
            Disk::Create(create) => {
                // A plain disk on a block device is zeroed first, which takes as long as it takes.
                let body = create.body();
                let disk: api::Disk = client.post(&route(&["disks"]), &body, Patience::Endless).await?;
                Answer::new(&disk, fields(&disk))
            }
            Disk::List(list) => list.run(client, format).await,
            Disk::Show { disk, watch, qemu } => {
                let path = qemu.asked(&route(&["disks", &disk]));
                let ask = async |client: &mut Client| {
                    let mut disk: api::Disk = client.get(&path).await?;
                    if format == Format::Json {
                        for attachment in &mut disk.attachments {
                            let api::DiskAttachment {
                                socket,
                                named_socket,
                                queues,
                                arguments,
                                ..
                            } = attachment;
                            let socket = named_socket.as_ref().unwrap_or(socket);
                            qemu::complete(arguments, &disk.id, socket, *queues).await;
                        }
                    }
                    Answer::new(&disk, fields(&disk))
                };
                watch.answer(client, format, ask).await
            }
            Disk::Set {
                disk,
                name,
                immutable:
                    Immutable {
                        encryption: Encryption { encrypted },
                        key,
                    },
                shared,
                on_full,
            } => {
                let body = api::SetDisk {
                    name,
                    encrypted,
                    key,
                    shared,
                    on_full: on_full.and_then(word),
                };
                let disk: api::Disk = client.patch(&route(&["disks", &disk]), &body).await?;
                Answer::new(&disk, fields(&disk))
            }
            Disk::Resize { disk, size } => {
                let path = route(&["disks", &disk, "resize"]);
                let disk: api::Disk = client
                    .post(&path, &api::Resize { size }, Patience::Change)
                    .await?;
                let text = format!(
                    "disk {} ({}) has {} now",
                    disk.name,
                    disk.id,
                    size::human(disk.size)
                );
                Answer::new(&disk, vec![Block::Line(text)])
            }
            Disk::Reinit {
                mut disk,
                force,
                no_wait,
                confirm,
            } => {
                if confirm.is_needed() {
                    let found: api::Disk = client.get(&route(&["disks", &disk])).await?;
                    let lost = format!(
                        "All data of disk {} ({}, {}) is lost but its snapshots",
                        found.name,
                        found.id,
                        size::human(found.size)
                    );
                    Confirm::ask(client, &lost).await?;
                    disk = found.id;
                }
                let path = route(&["disks", &disk, "reinit"]);
                let disk: api::Disk = client
                    .post(&path, &api::Reinitialise { force }, Patience::Change)
                    .await?;
                let goes_on = disk.copy.as_ref().is_some_and(copy::goes_on);
                if goes_on && no_wait {
                    let text = format!("disk {} ({}) is being made empty", disk.name, disk.id);
                    return Answer::new(&disk, vec![Block::Line(text)]);
                }
                let disk = match goes_on {
                    true => copy::wait(client, disk).await?,
                    false => disk,
                };
                let text = format!("disk {} ({}) is empty", disk.name, disk.id);
                Answer::new(&disk, vec![Block::Line(text)])
            }
            Disk::Copy(copy) => copy.run(client).await,
            Disk::Export(export) => export.run(client).await,
            Disk::Import(import) => import.run(client).await,
            Disk::Attachments { disk, instance, form } => {
                let path = form.qemu.asked(&route(&["disks", &disk, "attachments"]));
                let mut found: DiskAttachments = client.get(&path).await?;
                if let Some(wanted) = &instance {
                    let is_wanted =
                        |found: &api::Attachment| [&found.instance, &found.instance_name].contains(&wanted);
                    found.attachments.retain(is_wanted);
                    if found.attachments.is_empty() {
                        return Err(Failure::NotAttached(disk, wanted.clone()));
                    }
                }
                for attachment in &mut found.attachments {
                    attach::complete(attachment).await;
                }
                let forms = found.attachments.iter();
                let forms = forms.map(|attachment| form.lines(&attachment.arguments));
                let forms: Option<Vec<_>> = forms.collect();
                let blocks = match forms {
                    Some(forms) => forms.into_iter().flatten().collect(),
                    None => vec![Block::table(&found.attachments, ATTACHMENTS)],
                };
                Answer::new(&found, blocks)
            }
            Disk::Check { disk, repair } => {
                let path = route(&["disks", &disk, "check"]);
                let check: DiskCheck = client
                    .post(&path, &api::Check { repair }, Patience::Endless)
                    .await?;
                Answer::new(&check, check_text(&check, repair))
            }
            Disk::Delete(delete) => delete.run(client).await,
            Disk::Restore(restore) => restore.run(client).await,
        }
    }
}

impl Create {
    pub(super) fn body(self) -> CreateDisk {
        let store = self.store.map(store_name);
        CreateDisk {
            name: self.name,
            size: self.size,
            snapshot: self.snapshot,
            image: self.image,
            encrypted: self.encryption.encrypted,
            store,
            path: self.path,
            zone: self.zone,
            key: self.key,
            kind: self.kind.and_then(word),
            disk_type: self.disk_type.and_then(word),
            role: self.role.and_then(word),
            shared: self.shared,
            on_full: self.on_full.and_then(word),
        }
    }
}

const ATTACHMENTS: &[Column<api::Attachment>] = &[
    fixed("ID", |attachment| attachment.id.clone()),
    flexible("INSTANCE", |attachment| {
        name_or(&attachment.instance_name, &attachment.instance).to_owned()
    }),
    fixed("STATE", |attachment| attachment.state.clone()),
    fixed("QUEUES", |attachment| attachment.queues.to_string()),
    fixed("READ-ONLY", |attachment| yes_no(attachment.read_only)),
    flexible("SOCKET", |attachment| {
        let named = attachment.named_socket.as_ref();
        named.unwrap_or(&attachment.socket).clone()
    }),
];

fn check_text(check: &DiskCheck, repair: bool) -> Vec<Block> {
    let found = check.leaked + check.double_used + check.bad_pages;
    let verdict = if check.clean {
        format!("disk {}: {} pages, nothing found", check.name, check.pages)
    } else {
        format!(
            "disk {}: {} pages; {} clusters or pages leaked, {} used wrongly, {} pages damaged; {} of them repaired",
            check.name, check.pages, check.leaked, check.double_used, check.bad_pages, check.repaired
        )
    };
    let findings = check.findings.iter().map(|finding| format!("  {finding}"));
    let left = found - check.repaired.min(found);
    let advice = (left > 0).then(|| {
        if repair {
            format!("{left} cannot be derived from the rest, and stay as they are.")
        } else {
            "What can be derived from the rest is repaired with --repair, while the disk is detached."
                .to_owned()
        }
    });
    std::iter::once(verdict)
        .chain(findings)
        .chain(advice)
        .map(Block::Line)
        .collect()
}
