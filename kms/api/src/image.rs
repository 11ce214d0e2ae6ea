//! Images.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::disk::Copy;

/// An image: what disks are made from. Its data is a snapshot's.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// `img-…`
    pub id: String,
    /// Unique in the account that it belongs to.
    pub name: String,
    /// Account that it belongs to; another one than the caller's if it is shared with the caller's.
    pub account: String,
    /// `creating`, `available`, or `error`: its snapshot's store does not have it, or its import has failed.
    pub state: String,
    /// Size of a disk that is made from it (rule I04).
    pub size: u64,
    /// As its snapshot is (rules S01, I02).
    pub encrypted: bool,
    /// Its snapshot's lineage (rule K05); null if it is plain.
    pub lineage: Option<String>,
    /// Id of the key that wraps that lineage's data key.
    pub key: Option<String>,
    /// Kind of the disks that are made from it: `cloud` or `local`.
    pub kind: String,
    /// Type of the disks that are made from it.
    #[serde(rename = "type")]
    pub disk_type: String,
    /// Zone of the disks that are made from it.
    pub zone: String,
    /// Id of its snapshot; null if that has been deleted, and in other accounts.
    pub snapshot: Option<String>,
    /// Accounts that it is shared with; null in those.
    pub shared_with: Option<Vec<String>>,
    /// The copy that writes it to a file, or that it is made by; null in other accounts.
    pub copy: Option<Copy>,
    /// RFC 3339.
    pub created: String,
}

/// Images, a page.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ImageList {
    /// The images: the account's, and those that are shared with it.
    pub images: Vec<Image>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Makes an image, either of a snapshot or of a disk as it is now.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateImage {
    /// Unique in the account.
    pub name: String,
    /// Id, name or `DISK/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Id or name: a snapshot of the image's name is taken of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
}

/// Makes an image with the data of a file.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportImage {
    /// Unique in the account.
    pub name: String,
    /// Absolute path of a raw or qcow2 image, or of a block device.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// Instead of a path: the file that comes with the request as a descriptor (`SCM_RIGHTS`), open for reading.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub descriptor: bool,
    /// `raw` or `qcow2`; absent: as its content says; what is in neither format is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Whether it is encrypted; absent: if a key is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Key to wrap its data key with; absent: the service key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Changes an image. What is not given stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetImage {
    /// Its new name, unique in the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Never changes (rule I02): another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Never changes (rule I02): another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Shares an image with an account, or ends that.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareImage {
    /// Id of the account.
    pub account: String,
}

/// Copies an image: in its region under another name and encrypted (rule I01); or to another region, which is refused if
/// it is encrypted (rule I06), and otherwise because a KMS knows no other region's service.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyImage {
    /// Name of the region; instead of the other fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_region: Option<String>,
    /// The copy's name, unique in the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// True for a copy in the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Key to wrap the copy's data key with; absent: the service key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Writes an image's data to a file, plain and raw: refused if it is encrypted (rule I07).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportImage {
    /// Absolute path of a file that does not exist or is empty, or of a block device that begins with zeros. A file that is made
    /// belongs to the caller.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Instead of a path: the file that comes with the request as a descriptor (`SCM_RIGHTS`), open for reading and writing,
    /// and empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub descriptor: bool,
    /// That the data of an encrypted image is to be readable in the file, where the profile permits that.
    #[serde(default)]
    pub decrypt: bool,
}
