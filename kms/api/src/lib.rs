//! The objects of the API: what the daemon sends and `sealctl -o json` prints.
//!
//! Field names are stable: other programs read them. Times are RFC 3339 in UTC; sizes are bytes.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /v1/openapi.json` | | all of this as an OpenAPI 3.1 document |
//! | `GET /v1/kms` | | [`KmsStatus`] |
//! | `POST /v1/kms/activate` | | [`KmsStatus`] |
//! | `POST /v1/kms/rotate-root` | | [`KmsStatus`] |
//! | `POST /v1/kms/grant` · `/v1/kms/revoke` | | [`KmsStatus`] |
//! | `GET /v1/accounts` · `/v1/accounts/{account}` | | [`AccountList`] · [`Account`] |
//! | `POST /v1/accounts/{account}/credit` | [`Credit`] | [`Account`] |
//! | `GET /v1/profile` | | [`Profile`] |
//! | `GET /v1/keys` · `/v1/keys/{key}` | | [`KeyList`] · [`Key`] |
//! | `POST /v1/keys` | [`CreateKey`] | 201 [`Key`] |
//! | `PATCH /v1/keys/{key}` | [`SetKey`] | [`Key`] |
//! | `POST /v1/keys/{key}/enable` · `/disable` · `/cancel-deletion` · `/rotate` | | [`Key`] |
//! | `POST /v1/keys/{key}/schedule-deletion` | [`ScheduleDeletion`] | [`Key`] |
//! | `GET` · `POST /v1/keys/{key}/rewrap` | | [`Rewrapping`] |
//! | `POST /v1/keys/{key}/import-params` | | [`ImportParams`] |
//! | `POST /v1/keys/{key}/import` | [`Import`] | [`Key`] |
//! | `GET /v1/keys/{key}/resources` | | [`KeyResources`] |
//! | `GET /v1/instances` · `/v1/instances/{instance}` | | [`InstanceList`] · [`Instance`] |
//! | `POST /v1/instances` | [`RegisterInstance`] | 201 [`RegisteredInstance`] |
//! | `PATCH /v1/instances/{instance}` | [`SetInstance`] | [`Instance`] |
//! | `DELETE /v1/instances/{instance}` | | [`Instance`], as it was |
//! | `GET /v1/disks` · `/v1/disks/{disk}` | | [`DiskList`] · [`Disk`] |
//! | `POST /v1/disks` | [`CreateDisk`] | 201 [`Disk`] |
//! | `DELETE /v1/disks/{disk}` | | [`Disk`], as it was |
//! | `PATCH /v1/disks/{disk}` | [`SetDisk`] | [`Disk`] |
//! | `POST /v1/disks/{disk}/rollback` | [`Rollback`] | [`Disk`] |
//! | `POST /v1/disks/{disk}/reinit` | [`Reinitialise`] | [`Disk`] |
//! | `POST /v1/disks/{disk}/resize` | [`Resize`] | [`Disk`] |
//! | `POST /v1/disks/{disk}/copy` | [`CopyDisk`] | 202 [`Disk`], which is copied to |
//! | `POST /v1/disks/{disk}/export` | [`ExportDisk`] | 202 [`Disk`] |
//! | `POST /v1/imports` | [`ImportDisk`] | 202 [`Disk`], which is copied to |
//! | `POST /v1/disks/{disk}/copy/cancel` | | [`Disk`] |
//! | `POST /v1/disks/{disk}/check` | [`Check`] | [`DiskCheck`] |
//! | `GET /v1/snapshots?disk=DISK` · `/v1/snapshots/{snapshot}` | | [`SnapshotList`] · [`Snapshot`] |
//! | `POST /v1/snapshots` | [`CreateSnapshot`] | 201 [`Snapshot`] |
//! | `PATCH /v1/snapshots/{snapshot}` | [`SetSnapshot`] | [`Snapshot`] |
//! | `POST /v1/snapshots/{snapshot}/copy` | [`CopySnapshot`] | refused |
//! | `DELETE /v1/snapshots/{snapshot}` | | [`Snapshot`], as it was |
//! | `GET /v1/images?lineage=LINEAGE` · `/v1/images/{image}` | | [`ImageList`] · [`Image`] |
//! | `POST /v1/images` | [`CreateImage`] | 201 [`Image`] |
//! | `PATCH /v1/images/{image}` | [`SetImage`] | [`Image`] |
//! | `POST /v1/images/{image}/share` · `/unshare` | [`ShareImage`] | [`Image`] |
//! | `POST /v1/images/{image}/copy` | [`CopyImage`] | 201 [`Image`], the copy; to a region: refused |
//! | `POST /v1/images/{image}/export` | [`ExportImage`] | 202 [`Image`] |
//! | `POST /v1/images/{image}/export/cancel` | | [`Image`] |
//! | `DELETE /v1/images/{image}` | | [`Image`], as it was |
//! | `POST /v1/imports/images` | [`ImportImage`] | 202 [`Image`], which is made |
//! | `GET /v1/backups` · `/v1/backups/{backup}` | | [`BackupList`] · [`Backup`] |
//! | `POST /v1/backups` | [`CreateBackup`] | 202 [`Backup`] |
//! | `POST /v1/backups/{backup}/restore` | [`RestoreBackup`] | 202 [`Disk`], which is copied to |
//! | `DELETE /v1/backups/{backup}` | | [`Backup`], as it was |
//! | `POST /v1/attachments` | [`Attach`] | 201 [`Attachment`] |
//! | `GET /v1/attachments` · `/v1/attachments/{attachment}` | | [`AttachmentList`] · [`Attachment`] |
//! | `POST /v1/disks/{disk}/restart` | | [`Disk`], served by another process |
//! | `POST /v1/disks/{disk}/start` | | [`Disk`], served again after a restore of the catalogue |
//! | `POST /v1/disks/{disk}/detach` | [`Detach`] | [`Disk`], detached |
//! | `GET /v1/usage` | | [`Usage`] |
//! | `GET /v1/audit?after=SEQ&limit=N` | | [`AuditPage`] |
//! | `GET /v1/audit/verify?head=SEQ:HASH` | | [`AuditHead`] |
//! | `GET /v1/audit/archive?after=SEQ&limit=N` | | [`AuditPage`], of all accounts |
//! | `POST /v1/audit/archive` | [`ArchiveAudit`] | [`AuditHead`], after which the log begins |
//!
//! `{key}`, `{disk}` … take an id or a name; `{snapshot}` an id, a name that only one disk's snapshot has, or
//! `DISK/NAME` (with `%2F`); `{image}` an id, a name, or `ACCOUNT/NAME` of one that is shared. Lists take
//! `?after=ID&limit=N` and give `next` where more follows.
//! `GET` of disks and attachments takes `?qemu_version=VERSION`, which QEMU the arguments are for.
//! `POST` on a list, which creates something, takes the header `Idempotency-Key`; `GET` of one disk, image, instance, key or
//! snapshot has an `ETag`, and their `PATCH` and `DELETE` take `If-Match`.
//! Any refusal or failure is an [`ApiError`] with a fitting status.

#[cfg(feature = "arguments")]
pub mod arguments;
#[cfg(feature = "client")]
pub mod client;
pub mod limits;
#[cfg(feature = "client")]
pub mod passing;

mod account;
mod attachment;
mod audit;
mod backup;
mod code;
mod disk;
mod frontend;
mod image;
mod instance;
mod key;
mod kms;
mod snapshot;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use account::*;
pub use attachment::*;
pub use audit::*;
pub use backup::*;
pub use code::Code;
pub use disk::*;
pub use frontend::*;
pub use image::*;
pub use instance::*;
pub use key::*;
pub use kms::*;
pub use snapshot::*;

/// A refusal or failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// Stable, CamelCase: `LocalStorage`, `NotFound`, …
    pub code: String,
    /// Number of the rule that refused, such as `A03`; absent where no rule did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// A sentence that says what to do instead.
    pub message: String,
}
