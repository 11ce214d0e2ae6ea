//! `sealctl disk export` and `disk import`.

use clap::{ArgAction, Args, ValueEnum};
use sealblk_kms::api::types::{self, Disk};

use super::disk::{Store, store_name};
use super::{copy, object, path};
use crate::client::{Client, Patience, route};
use crate::failure::Failure;
use crate::output::{Answer, Block};
use crate::size;

const EXPORT_HELP: &str = "\
The disk is detached. The file is a raw image, sparse where the disk reads zeros, and is compared with the disk when it is \
written. sealblk-kms makes it as its own user, readable for that user alone. The file does not exist or is empty; a block \
device begins with zeros.

The data of an encrypted disk is readable in the file: --decrypt says that this is wanted. The key must be usable.

Examples:
  sealctl disk export scratch /backup/scratch.img
  sealctl disk export data /backup/data.img --decrypt --no-wait
  sealctl disk copy --cancel data";

const IMPORT_HELP: &str = "\
The disk is encrypted unless asked otherwise, and has the size of the image unless a larger one is asked for. It can be \
attached when all is copied and has been compared. The image must not be changed meanwhile.

A file that begins as a qcow2 image does is read as one, of version 2 or 3; with --format raw it is read as it is. A raw image \
that a guest has written to may begin in any way: if its origin is a guest, say --format raw. A qcow2 image that needs other \
files (backing files, data files), is encrypted or was not closed is refused; its own snapshots are left out. Files whose content \
shows that they are no raw image are refused, too: images in other formats, compressed files, archives. The message says what to \
do with them.

Examples:
  sealctl disk import data /images/data.img
  sealctl disk import root /images/debian-12.qcow2 --size 20GiB
  sealctl disk import scratch /dev/disk/by-id/old --encrypted=false --size 20GiB";

/// How data lies in a file.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    /// As on a disk.
    Raw,
    /// In a qcow2 image.
    Qcow2,
}

impl Format {
    /// As the API has it.
    pub(super) fn name(self) -> String {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
        }
        .to_owned()
    }
}

/// Arguments of `disk export`.
#[derive(Args, Debug)]
#[command(after_help = EXPORT_HELP)]
pub(crate) struct ExportDisk {
    /// Id or name of the disk.
    #[arg(value_parser = object)]
    disk: String,
    /// File or block device to write to.
    #[arg(value_parser = path)]
    file: String,
    /// That the data of an encrypted disk is to be readable in the file.
    #[arg(long)]
    decrypt: bool,
    /// Do not wait for the end.
    #[arg(long)]
    no_wait: bool,
}

/// Arguments of `disk import`.
#[derive(Args, Debug)]
#[command(after_help = IMPORT_HELP)]
pub(crate) struct ImportDisk {
    /// Name of the new disk, unique in the account.
    name: String,
    /// Raw or qcow2 image, or block device, with the data.
    #[arg(value_parser = path)]
    file: String,
    /// How the data lies in it [default: as its content says].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Size [default: that of the data].
    #[arg(long, value_parser = size::parse)]
    size: Option<u64>,
    /// Whether its data is encrypted [default: true].
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "true|false",
        hide_possible_values = true
    )]
    encrypted: Option<bool>,
    /// How its bytes are stored [default: layered].
    #[arg(long, value_enum)]
    store: Option<Store>,
    /// File or block device for the disk [default: a file in the state directory].
    #[arg(long = "path", value_name = "FILE_OR_BLOCK_DEVICE", value_parser = path)]
    place: Option<String>,
    /// Zone of the disk [default: the zone of the KMS].
    #[arg(long)]
    zone: Option<String>,
    /// Id or name of the key that wraps its data key [default: the service key].
    #[arg(long)]
    key: Option<String>,
    /// Do not wait for the end.
    #[arg(long)]
    no_wait: bool,
}

impl ExportDisk {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let route = route(&["disks", &self.disk, "export"]);
        let body = types::ExportDisk {
            file: self.file.clone(),
            decrypt: self.decrypt,
        };
        let disk: Disk = client.post(&route, &body, Patience::Change).await?;
        if self.no_wait {
            let text = format!("disk {} is being written to {}", disk.name, self.file);
            return Answer::new(&disk, vec![Block::Line(text)]);
        }
        let disk = copy::wait(client, disk).await?;
        let text = format!("disk {} is written to {}, and compared", disk.name, self.file);
        Answer::new(&disk, vec![Block::Line(text)])
    }
}

impl ImportDisk {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let (file, no_wait) = (self.file.clone(), self.no_wait);
        let body = self.body();
        let disk: Disk = client
            .post(&route(&["imports"]), &body, Patience::Endless)
            .await?;
        if no_wait {
            let text = format!("{file} is being read into disk {} ({})", disk.name, disk.id);
            return Answer::new(&disk, vec![Block::Line(text)]);
        }
        let disk = copy::wait(client, disk).await?;
        let text = format!(
            "disk {} ({}) has the data of {file}, and was compared",
            disk.name, disk.id
        );
        Answer::new(&disk, vec![Block::Line(text)])
    }

    fn body(self) -> types::ImportDisk {
        types::ImportDisk {
            file: self.file,
            format: self.format.map(Format::name),
            disk: types::CreateDisk {
                name: self.name,
                size: self.size,
                snapshot: None,
                image: None,
                role: None,
                shared: false,
                on_full: None,
                encrypted: self.encrypted,
                store: self.store.map(store_name),
                path: self.place,
                zone: self.zone,
                key: self.key,
                kind: None,
                disk_type: None,
            },
        }
    }
}
