//! Backups.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::disk::{Copy, CreateDisk};

/// A full copy of a disk outside of its file, encrypted as the disk is and with the same data key (rule I03).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Backup {
    /// `bak-…`
    pub id: String,
    /// Unique in the account.
    pub name: String,
    /// `creating`, `available`, or `error`.
    pub state: String,
    /// Whether its data is encrypted.
    pub encrypted: bool,
    /// Size of the disk, or of the snapshot, when it was made.
    pub size: u64,
    /// Bytes that its file takes.
    pub allocated: u64,
    /// Id of the disk, which may have been deleted since.
    pub disk: String,
    /// Name that the disk had.
    pub disk_name: String,
    /// The file.
    pub path: String,
    /// Id of the key that wraps its data key; null if it is plain.
    pub key: Option<String>,
    /// Lineage (rule K05); null if it is plain.
    pub lineage: Option<String>,
    /// The copy that goes on with it, or has made it.
    pub copy: Option<Copy>,
    /// RFC 3339.
    pub created: String,
}

/// Backups, a page.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BackupList {
    /// The backups.
    pub backups: Vec<Backup>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Makes a backup, either of a detached disk or of a snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBackup {
    /// Id or name of the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// Id, name or `DISK/NAME` of the snapshot, of a disk that may be in use or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Name of the backup, unique in the account.
    pub name: String,
    /// File or block device; absent: a file in the state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Restores a backup to a new disk, encrypted or not (rules I03, D10).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreBackup {
    /// The disk; what is not given is as the disk of the backup was, the key excepted.
    pub disk: CreateDisk,
}
