//! `sealctl backup`.

use clap::{Args, Subcommand};
use sealblk_api::client::{Client, Patience, route};
use sealblk_api::{self as api, BackupList, CreateBackup};

use super::copy;
use super::encryption::Encryption;
use super::store::{Store, store_name};
use crate::confirm::Confirm;
use crate::failure::Failure;
use crate::output::{Answer, Block, Column, fixed, flexible, or_dash, yes_no};
use crate::size;
use crate::values::{object, path};

const CREATE_HELP: &str = "\
A backup is a copy of all of the disk's data in a file of its own: thin, encrypted as the disk is and with the same data key, \
and compared with the disk when it is written. The disk is detached meanwhile. Of a disk that cannot be, take a snapshot, \
and make a backup of that: it is read while the disk is in use, or when the disk has been deleted.

The catalogue is not in it, and neither is the key: sealblk-kms backup copies these.

Examples:
  sealctl backup create data data-monday
  sealctl backup create data data-monday --path /mnt/backup/data-monday
  sealctl backup create data-monday --snapshot data/before-upgrade";

const RESTORE_HELP: &str = "\
The data goes to a new disk of the same size, which may be encrypted or not, whatever the backup is (rules I03, D10). \
Without a choice it is as the backup is. An encrypted disk has a data key of its own.

Examples:
  sealctl backup restore data-monday data-2
  sealctl backup restore data-monday data-plain --encrypted=false";

const DELETE_HELP: &str = "\
The last of the disk, its snapshots, the disks made from them and its backups takes the key with it.

Example:
  sealctl backup delete data-monday";

/// Full copies of disks.
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Make a backup of a detached disk, or of a snapshot.
    #[command(after_help = CREATE_HELP)]
    Create {
        /// Id or name of the disk; with --snapshot, the name of the backup.
        #[arg(value_parser = object, value_name = "DISK")]
        first: String,
        /// Name of the backup, unique in the account.
        #[arg(required_unless_present = "snapshot", conflicts_with = "snapshot")]
        name: Option<String>,
        /// Snapshot: id, DISK/NAME, or the name if no other disk has a snapshot of that name.
        #[arg(long, value_parser = object)]
        snapshot: Option<String>,
        /// File or block device for it [default: a file in the state directory].
        #[arg(long, value_name = "FILE_OR_BLOCK_DEVICE", value_parser = path)]
        path: Option<String>,
        /// Do not wait for the end.
        #[arg(long)]
        no_wait: bool,
    },
    /// Restore a backup to a new disk.
    #[command(after_help = RESTORE_HELP)]
    Restore(Restore),
    /// List backups.
    #[command(after_help = "Example:\n  sealctl backup list")]
    List,
    /// Show one backup.
    #[command(after_help = "Example:\n  sealctl backup show data-monday")]
    Show {
        /// Id or name of the backup.
        #[arg(value_parser = object)]
        backup: String,
    },
    /// Delete a backup.
    #[command(after_help = DELETE_HELP)]
    Delete {
        /// Id or name of the backup.
        #[arg(value_parser = object)]
        backup: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// Arguments of `backup restore`.
#[derive(Args, Debug)]
#[command(mut_arg("encrypted", |arg| arg.help("Whether its data is encrypted [default: as the backup is]")))]
pub(crate) struct Restore {
    /// Id or name of the backup.
    #[arg(value_parser = object)]
    backup: String,
    /// Name of the new disk, unique in the account.
    disk: String,
    /// Size [default: the backup's].
    #[arg(long, value_parser = size::parse)]
    size: Option<u64>,
    #[command(flatten)]
    encryption: Encryption,
    /// As --encrypted=false.
    #[arg(long, conflicts_with_all = ["encrypted", "key"])]
    plain: bool,
    /// Id or name of the key that wraps its data key [default: the service key].
    #[arg(long)]
    key: Option<String>,
    /// How its bytes are stored [default: layered].
    #[arg(long, value_enum)]
    store: Option<Store>,
    /// File or block device for the disk [default: a file in the state directory].
    #[arg(long, value_name = "FILE_OR_BLOCK_DEVICE", value_parser = path)]
    path: Option<String>,
    /// Do not wait for the end.
    #[arg(long)]
    no_wait: bool,
}

impl Backup {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        match self {
            Backup::Create {
                first,
                name,
                snapshot,
                path,
                no_wait,
            } => {
                let (disk, name) = match name {
                    Some(name) => (Some(first), name),
                    None => (None, first),
                };
                let body = CreateBackup {
                    disk,
                    snapshot,
                    name,
                    path,
                };
                let made: api::Backup = client.post(&route(&["backups"]), &body, Patience::Change).await?;
                let made = if no_wait {
                    made
                } else {
                    copy::wait(client, made).await?
                };
                Answer::new(&made, fields(&made))
            }
            Backup::Restore(restore) => restore.run(client).await,
            Backup::List => {
                let list: BackupList = client.list(&route(&["backups"])).await?;
                Answer::new(&list, vec![Block::table(&list.backups, COLUMNS)])
            }
            Backup::Show { backup } => {
                let backup: api::Backup = client.get(&route(&["backups", &backup])).await?;
                Answer::new(&backup, fields(&backup))
            }
            Backup::Delete { mut backup, confirm } => {
                if confirm.is_needed() {
                    let found: api::Backup = client.get(&route(&["backups", &backup])).await?;
                    let lost = format!(
                        "Backup {} ({}) of disk {}, of {}, goes for ever",
                        found.name, found.id, found.disk_name, found.created
                    );
                    Confirm::ask(client, &lost).await?;
                    backup = found.id;
                }
                let backup: api::Backup = client.delete(&route(&["backups", &backup])).await?;
                let text = format!("backup {} ({}) is deleted", backup.name, backup.id);
                Answer::new(&backup, vec![Block::Line(text)])
            }
        }
    }
}

impl Restore {
    async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let path = route(&["backups", &self.backup, "restore"]);
        let (backup, no_wait) = (self.backup.clone(), self.no_wait);
        let disk: api::Disk = client.post(&path, &self.body(), Patience::Endless).await?;
        if no_wait {
            let text = format!(
                "backup {backup} is being restored to disk {} ({})",
                disk.name, disk.id
            );
            return Answer::new(&disk, vec![Block::Line(text)]);
        }
        let disk = copy::wait(client, disk).await?;
        let text = format!(
            "backup {backup} is restored to disk {} ({}), and compared",
            disk.name, disk.id
        );
        Answer::new(&disk, vec![Block::Line(text)])
    }

    fn body(self) -> api::RestoreBackup {
        api::RestoreBackup {
            disk: api::CreateDisk {
                name: self.disk,
                size: self.size,
                encrypted: if self.plain {
                    Some(false)
                } else {
                    self.encryption.encrypted
                },
                store: self.store.map(store_name),
                path: self.path,
                key: self.key,
                ..api::CreateDisk::default()
            },
        }
    }
}

const COLUMNS: &[Column<api::Backup>] = &[
    flexible("BACKUP", |backup| backup.name.clone()),
    fixed("ID", |backup| backup.id.clone()),
    flexible("DISK", |backup| backup.disk_name.clone()),
    fixed("SIZE", |backup| size::human(backup.size)),
    fixed("STATE", |backup| backup.state.clone()),
    fixed("ENCRYPTED", |backup| yes_no(backup.encrypted)),
    fixed("CREATED", |backup| backup.created.clone()),
];

/// Everything about a backup.
fn fields(backup: &api::Backup) -> Vec<Block> {
    let mut fields = vec![
        ("id", backup.id.clone()),
        ("name", backup.name.clone()),
        ("state", backup.state.clone()),
        ("encrypted", yes_no(backup.encrypted)),
        ("size", size::exact(backup.size)),
        ("allocated", size::human(backup.allocated)),
        ("disk", format!("{} ({})", backup.disk_name, backup.disk)),
        ("path", backup.path.clone()),
    ];
    if backup.encrypted {
        fields.push(("key", or_dash(&backup.key)));
        fields.push(("lineage", or_dash(&backup.lineage)));
    }
    if let Some(copy) = &backup.copy {
        fields.push(("copy", copy::sentence(copy)));
    }
    fields.push(("created", backup.created.clone()));
    vec![Block::Fields(fields)]
}
