//! `sealctl disk`.

use clap::{ArgAction, Args, Subcommand, ValueEnum};
use sealblk_kms::api::types::{self, CreateDisk, DiskList};

use super::{object, path};
use crate::client::{Client, Patience, route};
use crate::failure::Failure;
use crate::output::{Answer, Block, fixed, flexible, or_dash, yes_no};
use crate::size;

const CREATE_HELP: &str = "\
Sizes are whole numbers of bytes or of KiB, MiB, GiB, TiB (K, M, G, T for short), multiples of 512, at most 64TiB.

Sectors of an encrypted raw disk that were never written read as noise, as with dm-crypt. A plain disk \
reads zeros there. Whether a disk is encrypted is decided here and never changes (rule D03).

Examples:
  sealctl disk create data --size 10GiB
  sealctl disk create scratch --size 512M --encrypted=false
  sealctl disk create fast --size 100G --path /dev/vg0/fast";

const DELETE_HELP: &str = "\
A file that was made for the disk is removed. A file that was there before (empty) is made empty again and stays. A \
block device stays as it is. A file that is not the one that the disk was created on stays, too.

Example:
  sealctl disk delete data";

/// Disks.
#[derive(Debug, Subcommand)]
pub(crate) enum Disk {
    /// Create an empty disk, encrypted unless asked otherwise.
    #[command(after_help = CREATE_HELP)]
    Create(Create),
    /// List disks.
    #[command(after_help = "Example:\n  sealctl disk list")]
    List,
    /// Show one disk.
    #[command(after_help = "Example:\n  sealctl -o json disk show data")]
    Show {
        /// Id or name of the disk.
        #[arg(value_parser = object)]
        disk: String,
    },
    /// Delete a disk and its wrapped key for ever. Refused while it is attached.
    #[command(after_help = DELETE_HELP)]
    Delete {
        /// Id or name of the disk.
        #[arg(value_parser = object)]
        disk: String,
    },
}

/// Arguments of `disk create`.
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Name, unique in the account: 1 to 64 letters, digits, dots, hyphens and underscores.
    name: String,
    /// Size, such as 1GiB, 512M or 4096.
    #[arg(long, value_parser = size::parse)]
    size: u64,
    /// Whether its data is encrypted.
    #[arg(
        long,
        action = ArgAction::Set,
        default_value_t = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "true|false",
        hide_possible_values = true
    )]
    encrypted: bool,
    /// How its bytes are stored: flat, or with snapshots.
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
}

/// How a disk's bytes are stored.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Store {
    /// Flat: a sector of the disk is the same sector of the file or block device. No snapshots.
    Raw,
    /// With snapshots inside.
    Layered,
}

impl Disk {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        match self {
            Disk::Create(create) => {
                // A plain disk on a block device is zeroed first, which takes as long as it takes.
                let body = create.body();
                let disk: types::Disk = client.post(&route(&["disks"]), &body, Patience::Endless).await?;
                Answer::new(&disk, fields(&disk))
            }
            Disk::List => {
                let list: DiskList = client.list(&route(&["disks"])).await?;
                Answer::new(&list, vec![table(&list)])
            }
            Disk::Show { disk } => {
                let disk: types::Disk = client.get(&route(&["disks", &disk])).await?;
                Answer::new(&disk, fields(&disk))
            }
            Disk::Delete { disk } => {
                let disk: types::Disk = client.delete(&route(&["disks", &disk])).await?;
                let text = format!("disk {} ({}) is deleted", disk.name, disk.id);
                Answer::new(&disk, vec![Block::Line(text)])
            }
        }
    }
}

impl Create {
    fn body(self) -> CreateDisk {
        let store = self.store.map(|store| match store {
            Store::Raw => "raw".to_owned(),
            Store::Layered => "layered".to_owned(),
        });
        CreateDisk {
            name: self.name,
            size: self.size,
            encrypted: self.encrypted,
            store,
            path: self.path,
            zone: self.zone,
            key: self.key,
        }
    }
}

fn table(list: &DiskList) -> Block {
    let columns = [
        fixed("ID"),
        flexible("NAME"),
        fixed("SIZE"),
        fixed("STATE"),
        fixed("ENCRYPTED"),
        fixed("INSTANCE"),
    ];
    let row = |disk: &types::Disk| {
        vec![
            disk.id.clone(),
            disk.name.clone(),
            size::human(disk.size),
            disk.state.clone(),
            yes_no(disk.encrypted),
            or_dash(&disk.instance),
        ]
    };
    Block::table(&columns, list.disks.iter().map(row))
}

/// Everything about a disk.
pub(super) fn fields(disk: &types::Disk) -> Vec<Block> {
    let mut fields = vec![
        ("id", disk.id.clone()),
        ("name", disk.name.clone()),
        ("state", disk.state.clone()),
        ("encrypted", yes_no(disk.encrypted)),
        (
            "size",
            format!("{} ({} bytes)", size::human(disk.size), disk.size),
        ),
        ("allocated", size::human(disk.allocated)),
        ("store", disk.store.clone()),
        ("path", disk.path.clone()),
        ("zone", disk.zone.clone()),
    ];
    if let Some(key) = &disk.key {
        let version = disk.key_version.map(|version| format!(" version {version}"));
        fields.push(("key", format!("{key}{}", version.unwrap_or_default())));
        fields.push(("lineage", or_dash(&disk.lineage)));
    }
    if disk.attachment.is_some() {
        fields.extend(attached_fields(disk));
    }
    fields.push(("created", disk.created.clone()));
    let warnings = disk
        .warnings
        .iter()
        .map(|warning| Block::Line(format!("warning: {warning}")));
    std::iter::once(Block::Fields(fields)).chain(warnings).collect()
}

fn attached_fields(disk: &types::Disk) -> Vec<(&'static str, String)> {
    let connected = disk.connected.map_or("unknown".to_owned(), yes_no);
    let mut fields = vec![
        ("attachment", or_dash(&disk.attachment)),
        ("instance", or_dash(&disk.instance)),
        ("pid", or_dash(&disk.pid)),
        ("socket", or_dash(&disk.socket)),
        ("connected", connected),
    ];
    if let Some(stats) = &disk.stats {
        fields.push((
            "reads",
            format!("{} ({})", stats.reads, size::human(stats.bytes_read)),
        ));
        fields.push((
            "writes",
            format!("{} ({})", stats.writes, size::human(stats.bytes_written)),
        ));
        fields.push(("flushes", stats.flushes.to_string()));
        fields.push(("I/O errors", stats.errors.to_string()));
    }
    fields
}
