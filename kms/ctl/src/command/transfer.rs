//! `sealctl disk export` and `disk import`.

use std::fs::File;

use clap::{Args, ValueEnum};
use sealblk_api::client::{Client, ClientError, Patience, route};
use sealblk_api::{self as api, Disk};

use super::copy;
use super::encryption::Encryption;
use super::store::{Store, store_name};
use crate::failure::Failure;
use crate::output::{Answer, Block};
use crate::size;
use crate::standard::{self, Output, STANDARD};
use crate::values::{file, object, path};

const EXPORT_HELP: &str = "\
The disk is detached. The file is a raw image, sparse where the disk reads zeros, and is compared with the disk when it is \
written. sealblk-kms makes it, for its caller, who alone can read it. The file does not exist or is empty; a block \
device begins with zeros.

With - it is standard output, which this command opens with your own rights: then the account needs no permission for a path. \
A file or block device is passed to sealblk-kms. To anything else, such as a pipe, all is written at the end, by way of a temporary \
file without a name (in TMPDIR), which needs that room. If sealblk-kms ends meanwhile, the export fails and has to be repeated.

The data of an encrypted disk is readable in the file: --decrypt says that this is wanted. The key must be usable.

Examples:
  sealctl disk export scratch /backup/scratch.img
  sealctl disk export data /backup/data.img --decrypt --no-wait
  sealctl disk export scratch - >scratch.img
  sealctl disk export scratch - | zstd >scratch.img.zst
  sealctl disk copy --cancel data";

const IMPORT_HELP: &str = "\
The disk is encrypted unless asked otherwise, and has the size of the image unless a larger one is asked for. It can be \
attached when all is copied and has been compared. The image must not be changed meanwhile.

With - it is standard input, which this command has opened with your own rights: then the account needs no permission for a path. \
A file or block device is passed to sealblk-kms, and read from its beginning. Anything else, such as a pipe, is read into a \
temporary file without a name first (in TMPDIR). If sealblk-kms ends meanwhile, the import fails and has to be repeated.

A file that begins as a qcow2 image does is read as one, of version 2 or 3; with --format raw it is read as it is. A raw image \
that a guest has written to may begin in any way: if its origin is a guest, say --format raw. A qcow2 image that needs other \
files (backing files, data files), is encrypted or was not closed is refused; its own snapshots are left out. Files whose content \
shows that they are no raw image are refused, too: images in other formats, compressed files, archives. The message says what to \
do with them.

Examples:
  sealctl disk import data /images/data.img
  sealctl disk import root /images/debian-12.qcow2 --size 20GiB
  sealctl disk import data - <data.img
  zstdcat data.img.zst | sealctl disk import data -
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
    /// File or block device to write to; `-`: standard output.
    #[arg(value_parser = file)]
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
#[command(mut_arg("encrypted", |arg| arg.help("Whether its data is encrypted [default: true]")))]
pub(crate) struct ImportDisk {
    /// Name of the new disk, unique in the account.
    name: String,
    /// Raw or qcow2 image, or block device, with the data; `-`: standard input.
    #[arg(value_parser = file)]
    file: String,
    /// How the data lies in it [default: as its content says].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Size [default: that of the data].
    #[arg(long, value_parser = size::parse)]
    size: Option<u64>,
    #[command(flatten)]
    encryption: Encryption,
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
        let to = To::new(&self.file, self.no_wait)?;
        let body = api::ExportDisk {
            file: to.path(),
            descriptor: to.is_passed(),
            decrypt: self.decrypt,
        };
        let disk = client
            .post_with(&route, &body, to.file()?, Patience::Change)
            .await;
        let again = format!("sealctl disk export {} - >FILE", self.disk);
        let disk: Disk = disk.map_err(|error| advised(error, &again))?;
        if self.no_wait {
            let text = format!("disk {} is being written to {}", disk.name, self.file);
            return to.answer(Answer::new(&disk, vec![Block::Line(text)])?);
        }
        let disk = copy::wait(client, disk).await?;
        let text = format!("disk {} is written to {}, and compared", disk.name, self.file);
        to.answer(Answer::new(&disk, vec![Block::Line(text)])?)
    }
}

impl ImportDisk {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let (file, no_wait) = (self.file.clone(), self.no_wait);
        let (again, passed) = (format!("sealctl disk import {} - <FILE", self.name), from(&file)?);
        let body = self.body(passed.is_some());
        let disk = client
            .post_with(&route(&["imports"]), &body, passed, Patience::Endless)
            .await;
        let disk: Disk = disk.map_err(|error| advised(error, &again))?;
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

    fn body(self, passed: bool) -> api::ImportDisk {
        api::ImportDisk {
            file: if passed { String::new() } else { self.file },
            descriptor: passed,
            format: self.format.map(Format::name),
            disk: api::CreateDisk {
                name: self.name,
                size: self.size,
                encrypted: self.encryption.encrypted,
                store: self.store.map(store_name),
                path: self.place,
                zone: self.zone,
                key: self.key,
                ..api::CreateDisk::default()
            },
        }
    }
}

/// What is to be passed for this file; none where the daemon opens it.
///
/// # Errors
/// Of reading standard input.
pub(super) fn from(file: &str) -> Result<Option<File>, Failure> {
    (file == STANDARD).then(standard::input).transpose()
}

/// Where an export goes.
pub(super) struct To<'a> {
    path: &'a str,
    output: Option<Output>,
}

impl<'a> To<'a> {
    /// # Errors
    /// Of standard output; [`Failure::WrongFile`] where nobody would be there to write what has come.
    pub(super) fn new(path: &'a str, no_wait: bool) -> Result<Self, Failure> {
        let output = (path == STANDARD).then(standard::output).transpose()?;
        if no_wait && output.as_ref().is_some_and(Output::is_spooled) {
            let text = "standard output is no file, and all is written to it at the end: leave --no-wait out";
            return Err(Failure::WrongFile(text.to_owned()));
        }
        Ok(To { path, output })
    }

    /// For the daemon; empty if the file is passed.
    pub(super) fn path(&self) -> String {
        match self.output {
            Some(_) => String::new(),
            None => self.path.to_owned(),
        }
    }

    pub(super) fn is_passed(&self) -> bool {
        self.output.is_some()
    }

    /// # Errors
    /// The kernel's.
    pub(super) fn file(&self) -> Result<Option<File>, Failure> {
        self.output.as_ref().map(Output::file).transpose()
    }

    /// The command's answer, after all has been written.
    ///
    /// # Errors
    /// Of writing.
    pub(super) fn answer(self, answer: Answer) -> Result<Answer, Failure> {
        match self.output {
            Some(output) => output.finish().map(|()| answer.aside()),
            None => Ok(answer),
        }
    }
}

/// Says that the caller's own process can open the file.
pub(super) fn advised(error: ClientError, again: &str) -> Failure {
    let failure = Failure::from(error);
    match failure {
        Failure::Refused(mut error) if error.code == "PathNotAllowed" => {
            error.message += &format!("; or, for a file of your own: `{again}`");
            Failure::Refused(error)
        }
        failure => failure,
    }
}
