//! `sealctl image`.

use clap::{Args, Subcommand};
use sealblk_api::client::{Client, Patience, route};
use sealblk_api::{self as api, CreateImage, ImageList, ShareImage};

use super::copy;
use super::encryption::Encryption;
use super::immutable::Immutable;
use super::transfer::{Format, To, advised, from};
use crate::confirm::Confirm;
use crate::failure::Failure;
use crate::output::{Answer, Block, Column, fixed, flexible, or_dash, yes_no};
use crate::size;
use crate::values::{file, object};

const CREATE_HELP: &str = "\
Takes neither time nor space: the image is a name over a snapshot, and is encrypted as that is, with the same key (rules \
S01, K05). Of a disk a snapshot of the image's name is taken first; if the disk is in use, flush in the guest before.

The snapshot can be deleted; its space returns when its last image and the last disk made from it are gone (rule S07).

Examples:
  sealctl image create debian-12 --snapshot data/before-upgrade
  sealctl image create debian-12 --disk data";

const SET_HELP: &str = "\
Encryption and key of an image are its snapshot's and never change: asking for others is refused (rule I02).

Example:
  sealctl image set debian-12 --name debian-old";

const SHARE_HELP: &str = "\
The other account sees the image as ACCOUNT/NAME, and makes disks from it. An encrypted image is not shared (rule I05).

Example:
  sealctl image share debian-12 --account acme";

const UNSHARE_HELP: &str = "\
The other account sees it no more. Disks that were made from it stay.

Example:
  sealctl image unshare debian-12 --account acme";

const COPY_HELP: &str = "\
In its region an image is copied as an encrypted one, with a data key of its own under the key that is named, or under the \
service key (rule I01). All data is copied and compared, which takes as long as it takes; it is all done or not at all.

To another region: an encrypted image does not leave its region (rule I06), and a KMS knows no other region's service. Make \
a disk from the image, and copy the data in a guest to a disk of the other region.

Examples:
  sealctl image copy debian-12 debian-12-sealed --encrypt
  sealctl image copy debian-12 debian-12-acme --encrypt --key acme
  sealctl image copy debian-12 --to-region eu-2";

const EXPORT_HELP: &str = "\
The file is a raw image, sparse where the image reads zeros, and is compared with the image when it is written. \
sealblk-kms makes it as its own user, readable for that user alone. The file does not exist or is empty; a block device \
begins with zeros. The writing goes on if this command is stopped, and after a crash from where it was; `image show` tells \
how far it has come. What is cancelled or fails leaves no file.

An encrypted image is not written to a file (rule I07). Under a profile that permits it, the key must be usable and \
--decrypt says that its data is to be readable in the file.

Examples:
  sealctl image export debian-12 /srv/debian-12.raw
  sealctl image export debian-12 /srv/debian-12.raw --no-wait
  sealctl image export --cancel debian-12";

const IMPORT_HELP: &str = "\
The image has the size of the data, and takes the space of what is not zeros. Disks can be made from it when all is copied and \
has been compared; `image show` tells how far it is. It goes on if this command is stopped, and after a crash from where it \
was. To end it, delete the image. The file must not be changed meanwhile. It is read as by `disk import`, which tells of \
formats.

Without --encrypted or --key the image is plain: it can be shared with other accounts, exported, and copied as an encrypted \
one. An encrypted one stays so (rule I02).

Examples:
  sealctl image import debian-12 /images/debian-12.qcow2
  sealctl image import debian-12-acme /images/debian-12.qcow2 --encrypted --key acme";

const DELETE_HELP: &str = "\
One that is being made of a file is not made. Disks that were made from it stay, and so does its snapshot, unless that was deleted before.

Example:
  sealctl image delete debian-12";

/// Images. One is named by its id or name, or as ACCOUNT/NAME if another account shares it.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Make an image of a snapshot, or of a disk as it is now.
    #[command(after_help = CREATE_HELP)]
    Create {
        /// Name, unique in the account: 1 to 64 letters, digits, dots, hyphens and underscores.
        name: String,
        #[command(flatten)]
        source: Source,
    },
    /// List images: the account's, and those that are shared with it.
    #[command(after_help = "Example:\n  sealctl image list")]
    List,
    /// Show one image.
    #[command(after_help = "Example:\n  sealctl image show debian-12")]
    Show {
        /// Id or name of the image.
        #[arg(value_parser = object)]
        image: String,
    },
    /// Rename an image.
    #[command(after_help = SET_HELP)]
    Set {
        /// Id or name of the image.
        #[arg(value_parser = object)]
        image: String,
        /// Its new name, unique in the account.
        #[arg(long, required_unless_present_any = ["encrypted", "key"])]
        name: Option<String>,
        #[command(flatten)]
        immutable: Immutable,
    },
    /// Share a plain image with another account.
    #[command(after_help = SHARE_HELP)]
    Share(Sharing),
    /// End the sharing of an image with an account.
    #[command(after_help = UNSHARE_HELP)]
    Unshare(Sharing),
    /// Copy an image as an encrypted one; to another region: refused.
    #[command(after_help = COPY_HELP)]
    Copy {
        /// Id or name of the image.
        #[arg(value_parser = object)]
        image: String,
        /// Name of the copy, unique in the account.
        #[arg(
            value_name = "COPY",
            requires = "encrypt",
            required_unless_present = "to_region"
        )]
        name: Option<String>,
        /// The copy is encrypted.
        #[arg(long, requires = "name")]
        encrypt: bool,
        /// Id or name of the key that wraps the copy's data key [default: the service key].
        #[arg(long, requires = "encrypt")]
        key: Option<String>,
        /// The region.
        #[arg(long, value_name = "REGION", conflicts_with_all = ["name", "encrypt", "key"])]
        to_region: Option<String>,
    },
    /// Write the data of a plain image to a raw image file.
    #[command(after_help = EXPORT_HELP)]
    Export(Export),
    /// Make an image of an image file.
    #[command(after_help = IMPORT_HELP)]
    Import(Import),
    /// Delete an image.
    #[command(after_help = DELETE_HELP)]
    Delete {
        /// Id or name of the image.
        #[arg(value_parser = object)]
        image: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// What an image is made of.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Source {
    /// Snapshot: id, DISK/NAME, or the name if no other disk has a snapshot of that name.
    #[arg(long, value_parser = object)]
    snapshot: Option<String>,
    /// Layered disk, of which a snapshot is taken: id or name.
    #[arg(long, value_parser = object)]
    disk: Option<String>,
}

/// With whom an image is shared.
#[derive(Args, Debug)]
pub(crate) struct Sharing {
    /// Id or name of the image.
    #[arg(value_parser = object)]
    image: String,
    /// Id of the account.
    #[arg(long, value_parser = object)]
    account: String,
}

impl Sharing {
    async fn call(self, client: &mut Client, call: &str) -> Result<api::Image, Failure> {
        let path = route(&["images", &self.image, call]);
        let account = self.account;
        let body = ShareImage { account };
        Ok(client.post(&path, &body, Patience::Change).await?)
    }
}

/// Arguments of `image export`.
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// Id or name of the image.
    #[arg(value_parser = object)]
    image: String,
    /// File or block device to write to; `-`: standard output.
    #[arg(value_parser = file, required_unless_present = "cancel", conflicts_with = "cancel")]
    file: Option<String>,
    /// That the data of an encrypted image is to be readable in the file.
    #[arg(long, conflicts_with = "cancel")]
    decrypt: bool,
    /// Do not wait for the end.
    #[arg(long, conflicts_with = "cancel")]
    no_wait: bool,
    /// End the writing of the image to a file, which is removed.
    #[arg(long)]
    cancel: bool,
}

/// Arguments of `image import`.
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// Name, unique in the account: 1 to 64 letters, digits, dots, hyphens and underscores.
    name: String,
    /// Raw or qcow2 image, or block device, with the data; `-`: standard input.
    #[arg(value_parser = file)]
    file: String,
    /// How the data lies in it [default: as its content says].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The image is encrypted.
    #[arg(long)]
    encrypted: bool,
    /// Id or name of the key that wraps its data key [default: the service key]; with it the image is encrypted.
    #[arg(long)]
    key: Option<String>,
    /// Do not wait for the end.
    #[arg(long)]
    no_wait: bool,
}

impl Import {
    async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let (again, passed) = (
            format!("sealctl image import {} - <FILE", self.name),
            from(&self.file)?,
        );
        let body = api::ImportImage {
            name: self.name,
            file: if passed.is_some() {
                String::new()
            } else {
                self.file.clone()
            },
            descriptor: passed.is_some(),
            format: self.format.map(Format::name),
            encrypted: self.encrypted.then_some(true),
            key: self.key,
        };
        let path = route(&["imports", "images"]);
        let image = client.post_with(&path, &body, passed, Patience::Endless).await;
        let image: api::Image = image.map_err(|error| advised(error, &again))?;
        if self.no_wait {
            let text = format!(
                "{} is being read into image {} ({})",
                self.file, image.name, image.id
            );
            return Answer::new(&image, vec![Block::Line(text)]);
        }
        let image = copy::wait(client, image).await?;
        let text = format!(
            "image {} ({}) has the data of {}, and was compared",
            image.name, image.id, self.file
        );
        Answer::new(&image, vec![Block::Line(text)])
    }
}

impl Export {
    async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let Some(file) = self.file else {
            let path = route(&["images", &self.image, "export", "cancel"]);
            let image: api::Image = client
                .post(&path, &serde_json::json!({}), Patience::Change)
                .await?;
            let text = format!("image {} ({}) is not written to a file", image.name, image.id);
            return Answer::new(&image, vec![Block::Line(text)]);
        };
        let path = route(&["images", &self.image, "export"]);
        let to = To::new(&file, self.no_wait)?;
        let body = api::ExportImage {
            path: to.path(),
            descriptor: to.is_passed(),
            decrypt: self.decrypt,
        };
        let image = client.post_with(&path, &body, to.file()?, Patience::Change).await;
        let again = format!("sealctl image export {} - >FILE", self.image);
        let image: api::Image = image.map_err(|error| advised(error, &again))?;
        if self.no_wait {
            let text = format!("image {} is being written to {file}", image.name);
            return to.answer(Answer::new(&image, vec![Block::Line(text)])?);
        }
        let image = copy::wait(client, image).await?;
        let text = format!("image {} is written to {file}, and compared", image.name);
        to.answer(Answer::new(&image, vec![Block::Line(text)])?)
    }
}

impl Image {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let image: api::Image = match self {
            Image::Create { name, source } => {
                let Source { snapshot, disk } = source;
                let body = CreateImage { name, snapshot, disk };
                client.post(&route(&["images"]), &body, Patience::Change).await?
            }
            Image::List => {
                let list: ImageList = client.list(&route(&["images"])).await?;
                return Answer::new(&list, vec![Block::table(&list.images, COLUMNS)]);
            }
            Image::Show { image } => client.get(&route(&["images", &image])).await?,
            Image::Set {
                image,
                name,
                immutable:
                    Immutable {
                        encryption: Encryption { encrypted },
                        key,
                    },
            } => {
                let body = api::SetImage { name, encrypted, key };
                client.patch(&route(&["images", &image]), &body).await?
            }
            Image::Share(sharing) => sharing.call(client, "share").await?,
            Image::Unshare(sharing) => sharing.call(client, "unshare").await?,
            Image::Copy {
                image,
                name,
                encrypt,
                key,
                to_region,
            } => {
                let path = route(&["images", &image, "copy"]);
                let body = api::CopyImage {
                    to_region,
                    name,
                    encrypted: encrypt.then_some(true),
                    key,
                };
                client.post(&path, &body, Patience::Endless).await?
            }
            Image::Import(import) => return import.run(client).await,
            Image::Export(export) => return export.run(client).await,
            Image::Delete { mut image, confirm } => {
                if confirm.is_needed() {
                    let found: api::Image = client.get(&route(&["images", &image])).await?;
                    let lost = format!(
                        "Image {} ({}) goes for ever, and its data unless a snapshot or a disk has it",
                        found.name, found.id
                    );
                    Confirm::ask(client, &lost).await?;
                    image = found.id;
                }
                let image: api::Image = client.delete(&route(&["images", &image])).await?;
                let text = format!("image {} ({}) is deleted", image.name, image.id);
                return Answer::new(&image, vec![Block::Line(text)]);
            }
        };
        Answer::new(&image, vec![fields(&image)])
    }
}

const COLUMNS: &[Column<api::Image>] = &[
    fixed("ID", |image| image.id.clone()),
    flexible("NAME", |image| image.name.clone()),
    flexible("ACCOUNT", |image| image.account.clone()),
    fixed("SIZE", |image| size::human(image.size)),
    fixed("STATE", |image| image.state.clone()),
    fixed("ENCRYPTED", |image| yes_no(image.encrypted)),
];

/// Everything about an image.
fn fields(image: &api::Image) -> Block {
    let mut fields = vec![
        ("id", image.id.clone()),
        ("name", image.name.clone()),
        ("account", image.account.clone()),
        ("state", image.state.clone()),
        ("size", size::exact(image.size)),
        ("encrypted", yes_no(image.encrypted)),
        ("kind", image.kind.clone()),
        ("type", image.disk_type.clone()),
        ("zone", image.zone.clone()),
    ];
    if let Some(key) = &image.key {
        fields.push(("key", key.clone()));
        fields.push(("lineage", or_dash(&image.lineage)));
    }
    fields.push(("snapshot", or_dash(&image.snapshot)));
    if let Some(accounts) = image.shared_with.as_ref().filter(|accounts| !accounts.is_empty()) {
        fields.push(("shared with", accounts.join(" ")));
    }
    if let Some(copy) = &image.copy {
        fields.push(("copy", copy::sentence(copy)));
    }
    fields.push(("created", image.created.clone()));
    Block::Fields(fields)
}
