//! Disks, and what is done with them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::frontend::FrontendArguments;
use super::snapshot::Snapshot;

/// A disk.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Disk {
    /// `disk-…`
    pub id: String,
    /// Unique in the account.
    pub name: String,
    /// What a guest reads as its serial number (virtio's GET_ID): the first 20 characters of the id, for ever. Linux has it
    /// as `/dev/disk/by-id/virtio-SERIAL`.
    pub serial: String,
    /// Rule D05: `creating`, `available`, `attaching`, `in-use`, `detaching`, `rolling-back` (also while it is
    /// re-initialised), `resizing`, `error`, `error-resizing`, `deleting`; or `deleted`: it is in the bin (rule K14).
    pub state: String,
    /// Whether its data is encrypted (rule D03: for ever).
    pub encrypted: bool,
    /// `cloud`, or `local`: never encrypted (rule D02).
    pub kind: String,
    /// `basic`, `efficiency`, `ssd` or `essd`.
    #[serde(rename = "type")]
    pub disk_type: String,
    /// `data`, or `system`: it comes and goes with its instance (rule I01).
    pub role: String,
    /// Id of the instance whose system disk it is.
    pub system_of: Option<String>,
    /// Whether several instances can have it at once (rule D09: for ever).
    pub shared: bool,
    /// What becomes of writes that the host has no room for: `error`, or `stop`: they are held until there is room.
    pub on_full: String,
    /// Virtual size.
    pub size: u64,
    /// What guests see of it until the disk is attached anew, where that is less (rule D06).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_size: Option<u64>,
    /// Bytes taken on the host, with those of its snapshots. In lists those of the file.
    pub allocated: u64,
    /// Of a layered disk's data, bytes that it shares with snapshots or reads from the disk that it was made from; null
    /// in lists, and where the store does not say so soon.
    pub shared_bytes: Option<u64>,
    /// Bytes of deleted snapshots that are still to be freed; null likewise.
    pub deleting: Option<u64>,
    /// A layered disk's snapshots, oldest first; null in lists.
    pub snapshots: Option<Vec<Snapshot>>,
    /// How many snapshots it has; null of a raw disk.
    #[serde(default)]
    pub snapshot_count: Option<u32>,
    /// Id of the snapshot that it was made from, also by way of an image; null if it was made empty.
    pub snapshot: Option<String>,
    /// `layered` or `raw`.
    pub store: String,
    /// The file or block device.
    pub path: String,
    /// Its zone.
    pub zone: String,
    /// Id of the key that wraps its data key; null for a plain disk.
    pub key: Option<String>,
    /// Version of that key.
    pub key_version: Option<u32>,
    /// Lineage (rule K05); null for a plain disk.
    pub lineage: Option<String>,
    /// Id of its attachment, of several the oldest; null when detached.
    pub attachment: Option<String>,
    /// Id of the instance it is attached to, of several that of the oldest attachment.
    pub instance: Option<String>,
    /// All its attachments, oldest first; more than one only of a shared disk.
    pub attachments: Vec<DiskAttachment>,
    /// The serving process, if it runs: one for all attachments.
    pub pid: Option<i32>,
    /// What keeps the serving process in bounds, should its guest take it over; null when detached or unknown.
    #[serde(default)]
    pub sandbox: Option<Sandbox>,
    /// The vhost-user socket of the oldest attachment.
    pub socket: Option<String>,
    /// Whether a virtual machine is connected, to whichever attachment; null when detached or unknown.
    pub connected: Option<bool>,
    /// Counters of the serving process; null when detached or unknown.
    pub stats: Option<DiskStats>,
    /// The copy from or to it that goes on, or else the last one to it; null if there was none.
    pub copy: Option<Copy>,
    /// What the operator should look at.
    pub warnings: Vec<String>,
    /// RFC 3339.
    pub created: String,
    /// When it was deleted, RFC 3339; null unless it is in the bin.
    #[serde(default)]
    pub deleted: Option<String>,
    /// When it leaves the bin, and cannot be restored any more, RFC 3339: later if the daemon does not see that time pass, never
    /// sooner. Null likewise.
    #[serde(default)]
    pub removal: Option<String>,
}

/// What keeps a serving process in bounds, should its guest take it over.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Sandbox {
    /// `full`, `partial`, or `none`: the process is of an earlier version.
    pub level: String,
    /// What it lacks, each as `name: cause`.
    pub missing: Vec<String>,
}

/// One of a disk's attachments.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DiskAttachment {
    /// `att-…`
    pub id: String,
    /// Id of the instance.
    pub instance: String,
    /// Its name.
    #[serde(default)]
    pub instance_name: String,
    /// `starting`, `serving`, `waiting` (for another supervisor), `restarting`, or `error`: its process is ending, and waits for
    /// storage that does not answer.
    pub state: String,
    /// The vhost-user socket.
    pub socket: String,
    /// A path that leads to the socket of this disk at this instance, whatever the attachment; null where there is none.
    #[serde(default)]
    pub named_socket: Option<String>,
    /// Most virtqueues.
    pub queues: u16,
    /// The guest may only read.
    pub read_only: bool,
    /// Whether a virtual machine is connected; null in lists and when unknown.
    pub connected: Option<bool>,
    /// What the virtual machine has set up; null in lists, and where the serving process does not say so.
    #[serde(default)]
    pub session: Option<DiskSession>,
    /// Whether it was plugged into a running virtual machine.
    #[serde(default)]
    pub plugged: bool,
    /// What its virtual machine needs. In lists no machine is asked for its version.
    #[serde(flatten)]
    pub arguments: FrontendArguments,
}

/// What a virtual machine has set up on its connection to a disk.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DiskSession {
    /// Virtio features that the guest's driver has acknowledged.
    pub features: Vec<String>,
    /// vhost-user protocol features that the virtual machine monitor has acknowledged.
    pub protocol_features: Vec<String>,
    /// Regions of guest memory that are shared.
    pub regions: u32,
    /// Bytes of all these.
    pub memory: u64,
    /// Queues that the guest's driver has set up.
    pub queues_set_up: u32,
    /// Queues that are served.
    pub queues_running: u32,
    /// What is wrong with it, also what an earlier connection has ended for. The same is in the disk's warnings.
    pub troubles: Vec<Trouble>,
}

/// Something that is wrong.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Trouble {
    /// `MemoryNotShared`, `AddressesTranslated`, `QueueBroken`, `NotRecorded` or `MessageRefused`; later versions may have
    /// others.
    pub code: String,
    /// A sentence.
    pub message: String,
}

/// A copy of data (rule D04). While it goes on nothing else can be done with either disk.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Copy {
    /// `op-…`
    pub id: String,
    /// Id of the disk, snapshot or backup that is copied from; `zeros` where a raw disk is made empty; null for a file, and if it has
    /// been deleted since.
    pub from: Option<String>,
    /// Id of the disk, backup or image that is copied to; null for a file.
    pub to: Option<String>,
    /// The file, if there is one.
    pub file: Option<String>,
    /// `copy`, `verify` (both sides are read again and compared), `done`, `failed`, `cancelled`.
    pub phase: String,
    /// Bytes of which the phase is done.
    pub done: u64,
    /// Bytes of which it is to be done.
    pub total: u64,
    /// Why it has failed, or does not go on for the moment.
    pub trouble: Option<String>,
    /// RFC 3339.
    pub created: String,
}

/// Counters of a serving process since its start.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct DiskStats {
    /// Completed requests.
    pub reads: u64,
    /// Completed requests.
    pub writes: u64,
    /// Completed requests.
    pub flushes: u64,
    /// Bytes.
    pub bytes_read: u64,
    /// Bytes.
    pub bytes_written: u64,
    /// Requests answered with an error.
    pub errors: u64,
}

/// Disks, a page.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DiskList {
    /// The disks.
    pub disks: Vec<Disk>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Creates a disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateDisk {
    /// Unique in the account.
    pub name: String,
    /// Bytes; a multiple of 512, at most 64 TiB. Absent: the snapshot's or the image's (rule I04).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Id, name or `DISK/NAME` of the snapshot that it begins as; absent: it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Id or name of the image that it begins as, `ACCOUNT/NAME` of one that is shared; instead of a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Absent: true, or as the snapshot or the image is (rule D10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// `layered` or `raw` (absent: layered).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// File or block device; absent: a file in the state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Absent: the KMS's zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Key to wrap the data key with. The service key may be named (rule K03); absent: the service key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `cloud` or `local`; absent: cloud, or the snapshot's or the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `basic`, `efficiency`, `ssd` or `essd`; absent: ssd, or the snapshot's or the image's.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub disk_type: Option<String>,
    /// `data`; absent: data. A system disk comes with its instance alone (rule I01).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Whether several instances can have it at once (rule D09). A snapshot's or an image's disk chooses for itself.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shared: bool,
    /// What becomes of writes that the host has no room for: `error` or `stop` (absent: error).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_full: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// Changes a disk. What is not given stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetDisk {
    /// Its new name, unique in the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Never changes (rule D03): another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Never changes (rule K09): another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Never changes (rule D09): the other is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
    /// What becomes of writes that the host has no room for: `error` or `stop`. Under a guest from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_full: Option<String>,
}

/// Restores a deleted disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreDisk {
    /// Its name from now on, unique in the account; absent: the one that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Makes a disk what one of its snapshots holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Id or name of a snapshot of this disk.
    pub snapshot: String,
    /// Also while the disk is in use (rule S05).
    #[serde(default)]
    pub force: bool,
}

/// Makes a disk empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reinitialise {
    /// Also while the disk is in use (rule S05).
    #[serde(default)]
    pub force: bool,
}

/// Copies the data of another disk to this one (rule D04).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyDisk {
    /// Id or name of the disk that is copied from.
    pub source: String,
    /// Also if this disk may hold data.
    #[serde(default)]
    pub overwrite: bool,
}

/// Writes the data of a disk to a file, plain and raw.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportDisk {
    /// Absolute path of a file that does not exist or is empty, or of a block device that begins with zeros. A file that is made
    /// belongs to the caller.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// Instead of a path: the file that comes with the request as a descriptor (`SCM_RIGHTS`), open for reading and writing,
    /// and empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub descriptor: bool,
    /// That the data of an encrypted disk is to be readable in the file for everybody who can read that.
    #[serde(default)]
    pub decrypt: bool,
}

/// Creates a disk with the data of a file.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportDisk {
    /// Absolute path of a raw or qcow2 image, or of a block device.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// Instead of a path: the file that comes with the request as a descriptor (`SCM_RIGHTS`), open for reading.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub descriptor: bool,
    /// `raw` or `qcow2`; absent: as its content says; what is in neither format is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// The disk; without a size it has that of the data, in whole sectors.
    pub disk: CreateDisk,
}

/// Makes a disk larger.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// Bytes; a multiple of 512, at most 64 TiB.
    pub size: u64,
}

/// Examines the metadata of a disk's store.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Repair what can be derived; only while the disk is detached.
    #[serde(default)]
    pub repair: bool,
}

/// What an examination has found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DiskCheck {
    /// The disk's.
    pub id: String,
    /// The disk's.
    pub name: String,
    /// Nothing was found.
    pub clean: bool,
    /// Pages of metadata that were read.
    pub pages: u64,
    /// Clusters in use that nothing references.
    pub leaked: u64,
    /// Clusters that two places reference, or that are referenced and count as free.
    pub double_used: u64,
    /// Damaged pages.
    pub bad_pages: u64,
    /// Findings that were repaired.
    pub repaired: u64,
    /// The first 100 findings, one sentence each.
    pub findings: Vec<String>,
}
