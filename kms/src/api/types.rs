//! The objects of the API: what the daemon sends and `sealctl -o json` prints.
//!
//! Field names are stable: other programs read them. Times are RFC 3339 in UTC; sizes are bytes.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /v1/kms` | | [`KmsStatus`] |
//! | `POST /v1/kms/activate` | | [`KmsStatus`] |
//! | `POST /v1/kms/grant` · `/v1/kms/revoke` | | [`KmsStatus`] |
//! | `GET /v1/accounts` · `/v1/accounts/{account}` | | [`AccountList`] · [`Account`] |
//! | `POST /v1/accounts/{account}/credit` | [`Credit`] | [`Account`] |
//! | `GET /v1/profile` | | [`Profile`] |
//! | `GET /v1/keys` · `/v1/keys/{key}` | | [`KeyList`] · [`Key`] |
//! | `GET /v1/instances` · `/v1/instances/{instance}` | | [`InstanceList`] · [`Instance`] |
//! | `POST /v1/instances` | [`RegisterInstance`] | 201 [`RegisteredInstance`] |
//! | `DELETE /v1/instances/{instance}` | | [`Instance`], as it was |
//! | `GET /v1/disks` · `/v1/disks/{disk}` | | [`DiskList`] · [`Disk`] |
//! | `POST /v1/disks` | [`CreateDisk`] | 201 [`Disk`] |
//! | `DELETE /v1/disks/{disk}` | | [`Disk`], as it was |
//! | `PATCH /v1/disks/{disk}` | [`SetDisk`] | [`Disk`] |
//! | `POST /v1/disks/{disk}/rollback` | [`Rollback`] | [`Disk`] |
//! | `POST /v1/disks/{disk}/reinit` | [`Reinitialise`] | [`Disk`] |
//! | `POST /v1/disks/{disk}/resize` | [`Resize`] | [`Disk`] |
//! | `POST /v1/disks/{disk}/check` | [`Check`] | [`DiskCheck`] |
//! | `GET /v1/snapshots?disk=DISK` · `/v1/snapshots/{snapshot}` | | [`SnapshotList`] · [`Snapshot`] |
//! | `POST /v1/snapshots` | [`CreateSnapshot`] | 201 [`Snapshot`] |
//! | `PATCH /v1/snapshots/{snapshot}` | [`SetSnapshot`] | [`Snapshot`] |
//! | `POST /v1/snapshots/{snapshot}/copy` | [`CopySnapshot`] | refused |
//! | `DELETE /v1/snapshots/{snapshot}` | | [`Snapshot`], as it was |
//! | `POST /v1/attachments` | [`Attach`] | 201 [`Attachment`] |
//! | `GET /v1/attachments` · `/v1/attachments/{attachment}` | | [`AttachmentList`] · [`Attachment`] |
//! | `POST /v1/disks/{disk}/restart` | | [`Disk`], served by another process |
//! | `POST /v1/disks/{disk}/detach` | [`Detach`] | [`Disk`], detached |
//! | `GET /v1/usage` | | [`Usage`] |
//! | `GET /v1/audit?after=SEQ&limit=N` | | [`AuditPage`] |
//!
//! `{key}`, `{disk}` … take an id or a name; `{snapshot}` an id, a name that only one disk's snapshot has, or
//! `DISK/NAME` (with `%2F`). Lists take `?after=ID&limit=N` and give `next` where more follows.
//! Any refusal or failure is an [`ApiError`] with a fitting status.

use serde::{Deserialize, Serialize};

/// A refusal or failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// Stable, CamelCase: `LocalStorage`, `NotFound`, …
    pub code: String,
    /// Number of the rule that refused, such as `A03`; absent where no rule did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// A sentence that says what to do instead.
    pub message: String,
}

/// State of the KMS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KmsStatus {
    /// Id of the state directory's catalogue.
    pub id: String,
    /// Same as the region.
    pub name: String,
    /// Region that this KMS serves.
    pub region: String,
    /// Default zone.
    pub zone: String,
    /// Name of the policy profile.
    pub profile: String,
    /// Account of the caller.
    pub account: String,
    /// `active` or `inactive`, for the caller's account: activated (rule K01) or granted (rule K02), as the profile asks.
    pub state: String,
    /// Where the root key comes from: `file`.
    pub root_key: String,
    /// Version of the program.
    pub version: String,
    /// Numbers of the account's objects.
    pub disks: u64,
    /// Disks that are attached.
    pub attached: u64,
    /// Registered instances.
    pub instances: u64,
    /// What the operator should look at.
    pub warnings: Vec<String>,
}

/// The policy profile: what the rules leave to the region's choice. Documented in `docs/rules-profiles.md`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// Its name.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What shares a data key (rule K04): `region` or `disk`.
    pub key_scope: String,
    /// Accounts can have keys of their own (rule K08).
    pub customer_keys: bool,
    /// What comes before the first encrypted disk: `activation` (rule K01) or `grant` (rule K02).
    pub gate: String,
    /// What decides whether a system disk is encrypted (rule I01): `no`, `by-image` or `yes`.
    pub system_disks: String,
    /// Rule A03.
    pub refuse_local_storage: bool,
    /// Rule A04.
    pub refuse_bare_metal: bool,
    /// Types of disks that can be encrypted (rule D02).
    pub encryptable_types: Vec<String>,
    /// Those of them that can be encrypted and shared (rules D02 and D09).
    pub encryptable_shared_types: Vec<String>,
    /// An image with an encrypted snapshot can be shared with another account (rule I05).
    pub share_image: bool,
    /// Encrypted snapshots can be copied to another region (rule S06).
    pub copy_snapshot_across_regions: bool,
    /// Encrypted images can be copied to another region (rule I06).
    pub copy_image_across_regions: bool,
    /// Encrypted images can be exported (rule I07).
    pub export_image: bool,
    /// When a guest sees that its disk has grown (rule D06): `live` or `after-reattach`.
    pub new_size: String,
    /// Making a disk empty is metered (rule M01).
    pub meter_reinit: bool,
    /// Metered calls that are free each month (rule M02); null: all.
    pub free_calls: Option<u64>,
    /// Price of a call beyond them, in micro-units.
    pub call_price: u64,
    /// What a customer key costs each month, in micro-units (rule M03).
    pub customer_key_fee: u64,
}

/// A customer master key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Key {
    /// `key-…`
    pub id: String,
    /// Unique in the account.
    pub name: String,
    /// `service`, `customer` or `imported`.
    pub origin: String,
    /// `Enabled`, `Disabled`, `PendingImport`, `PendingDeletion` or `Destroyed` (rule K11).
    pub state: String,
    /// Region it belongs to (rule K15).
    pub region: String,
    /// Newest version.
    pub version: u32,
    /// What it encrypts with: `AES-256-GCM`.
    pub algorithm: String,
    /// Disks whose data key it wraps.
    pub disks: u64,
    /// RFC 3339.
    pub created: String,
}

/// Keys, a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyList {
    /// The keys.
    pub keys: Vec<Key>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A registered instance (virtual machine).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Instance {
    /// `ins-…`
    pub id: String,
    /// Unique in the account.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Declared to have local storage (rule A03).
    pub local_storage: bool,
    /// Declared to be bare metal (rule A04).
    pub bare_metal: bool,
    /// Socket of its virtual machine, which is asked at each attach of an encrypted disk (rule A03).
    pub vm_socket: Option<String>,
    /// The one device of its host that the virtual machine may write to.
    pub boot_disk: Option<String>,
    /// Ids of the disks attached to it.
    pub disks: Vec<String>,
    /// RFC 3339.
    pub created: String,
}

/// Instances, a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstanceList {
    /// The instances.
    pub instances: Vec<Instance>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Registers an instance.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterInstance {
    /// Unique in the account.
    pub name: String,
    /// Absent: the KMS's zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// It has local storage.
    #[serde(default)]
    pub local_storage: bool,
    /// It is bare metal.
    #[serde(default)]
    pub bare_metal: bool,
    /// Absolute path of its virtual machine's socket: QMP, or the API of cloud-hypervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_socket: Option<String>,
    /// Absolute path of the file or device that the virtual machine boots from, on its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_disk: Option<String>,
    /// Disks to create with it, all or none (rule D11). Absent zones: the instance's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<CreateDisk>,
}

/// A new instance, and the disks that were created with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegisteredInstance {
    /// The instance.
    #[serde(flatten)]
    pub instance: Instance,
    /// Its disks, in the order in which they were asked for; none are attached yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new_disks: Vec<Disk>,
}

/// A disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Disk {
    /// `disk-…`
    pub id: String,
    /// Unique in the account.
    pub name: String,
    /// Rule D05: `creating`, `available`, `attaching`, `in-use`, `detaching`, `rolling-back` (also while it is
    /// re-initialised), `resizing`, `error`, `error-resizing`, `deleting`.
    pub state: String,
    /// Whether its data is encrypted (rule D03: for ever).
    pub encrypted: bool,
    /// `cloud`, or `local`: never encrypted (rule D02).
    pub kind: String,
    /// `basic`, `efficiency`, `ssd` or `essd`.
    #[serde(rename = "type")]
    pub disk_type: String,
    /// Virtual size.
    pub size: u64,
    /// Bytes taken on the host, with those of its snapshots. In lists those of the file.
    pub allocated: u64,
    /// Of a layered disk's data, bytes that it shares with snapshots or reads from the disk that it was made from; null
    /// in lists, and where the store does not say so soon.
    pub shared: Option<u64>,
    /// Bytes of deleted snapshots that are still to be freed; null likewise.
    pub deleting: Option<u64>,
    /// A layered disk's snapshots, oldest first; null in lists.
    pub snapshots: Option<Vec<Snapshot>>,
    /// Id of the snapshot that it was made from; null if it was made empty.
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
    /// Id of its attachment; null when detached.
    pub attachment: Option<String>,
    /// Id of the instance it is attached to.
    pub instance: Option<String>,
    /// The serving process, if it runs.
    pub pid: Option<i32>,
    /// The vhost-user socket.
    pub socket: Option<String>,
    /// Whether a virtual machine is connected; null when detached or unknown.
    pub connected: Option<bool>,
    /// Counters of the serving process; null when detached or unknown.
    pub stats: Option<DiskStats>,
    /// What the operator should look at.
    pub warnings: Vec<String>,
    /// RFC 3339.
    pub created: String,
}

/// Counters of a serving process since its start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiskList {
    /// The disks.
    pub disks: Vec<Disk>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Creates a disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateDisk {
    /// Unique in the account.
    pub name: String,
    /// Bytes; a multiple of 512, at most 64 TiB. Absent: the snapshot's (rule I04).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Id, name or `DISK/NAME` of the snapshot that it begins as; absent: it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Absent: true, or as the snapshot is (rule D10).
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
    /// `cloud` or `local`; absent: cloud, or the snapshot's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `basic`, `efficiency`, `ssd` or `essd`; absent: ssd, or the snapshot's.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub disk_type: Option<String>,
}

/// Changes a disk. What is not given stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
}

/// Makes a disk what one of its snapshots holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Id or name of a snapshot of this disk.
    pub snapshot: String,
    /// Also while the disk is in use (rule S05).
    #[serde(default)]
    pub force: bool,
}

/// Makes a disk empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reinitialise {
    /// Also while the disk is in use (rule S05).
    #[serde(default)]
    pub force: bool,
}

/// Makes a disk larger.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// Bytes; a multiple of 512, at most 64 TiB.
    pub size: u64,
}

/// Examines the metadata of a disk's store.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Repair what can be derived; only while the disk is detached.
    #[serde(default)]
    pub repair: bool,
}

/// What an examination has found.
#[derive(Clone, Debug, Serialize, Deserialize)]
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

/// A snapshot of a disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// `snap-…`
    pub id: String,
    /// Unique among the disk's snapshots.
    pub name: String,
    /// Id of the disk that it was taken of.
    pub disk: String,
    /// Name of that disk; null if it has been deleted.
    pub disk_name: Option<String>,
    /// `creating`, `available`, or `error`: its store does not have it.
    pub state: String,
    /// Size of the disk when it was taken.
    pub size: u64,
    /// Bytes of its data that nothing else holds; null in the list of all disks' snapshots, and where the store does not
    /// say so soon.
    pub unique_bytes: Option<u64>,
    /// As its disk is (rule S01).
    pub encrypted: bool,
    /// Its disk's lineage (rule K05); null if it is plain.
    pub lineage: Option<String>,
    /// How many volumes were made from it: disks, and deleted disks with snapshots.
    pub clones: u64,
    /// RFC 3339.
    pub created: String,
}

/// Snapshots, a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotList {
    /// The snapshots.
    pub snapshots: Vec<Snapshot>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Takes a snapshot of a disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// Id or name.
    pub disk: String,
    /// Unique among the disk's snapshots.
    pub name: String,
}

/// Changes a snapshot. What is not given stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSnapshot {
    /// Its new name, unique among the disk's snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Never changes (rule S01): another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Never changes (rule K09): another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Copies a snapshot to a region: refused if it is encrypted (rule S06), and otherwise because a KMS knows no other
/// region's service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopySnapshot {
    /// Name of the region.
    pub to_region: String,
}

/// Attaches a disk to an instance.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// Id or name.
    pub disk: String,
    /// Id or name.
    pub instance: String,
    /// Most virtqueues, 1 to 16; absent: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// The guest may only read.
    #[serde(default)]
    pub read_only: bool,
    /// Absolute path for the vhost-user socket; absent: one in the state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost_socket: Option<String>,
    /// `USER[:GROUP]`, names or numbers; absent: the KMS's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_owner: Option<String>,
    /// Octal text such as `0660`; absent: `0600`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_mode: Option<String>,
    /// Absent: true. False: another supervisor starts sealblk, with [`Attachment::command`].
    #[serde(default = "yes")]
    pub start: bool,
}

/// A disk's attachment to an instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attachment {
    /// `att-…`
    pub id: String,
    /// Same as the id.
    pub name: String,
    /// Same as the id.
    pub attachment: String,
    /// Id of the disk.
    pub disk: String,
    /// Id of the instance.
    pub instance: String,
    /// `starting`, `serving`, `waiting` (for another supervisor) or `restarting`.
    pub state: String,
    /// The vhost-user socket.
    pub socket: String,
    /// The serving process, if it runs.
    pub pid: Option<i32>,
    /// Most virtqueues.
    pub queues: u16,
    /// The guest may only read.
    pub read_only: bool,
    /// Arguments to add to a QEMU command line.
    pub qemu_args: String,
    /// Arguments to add to a cloud-hypervisor command line.
    pub cloud_hypervisor_args: String,
    /// The sealblk command for another supervisor, where `start` was false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// RFC 3339.
    pub created: String,
}

/// Attachments, a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttachmentList {
    /// The attachments.
    pub attachments: Vec<Attachment>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Detaches a disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detach {
    /// Id or name; if given, the disk must be attached to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Also while a virtual machine is connected.
    #[serde(default)]
    pub force: bool,
}

/// An account. Amounts are in micro-units.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    /// As the accounts file has it.
    pub id: String,
    /// Same as the id.
    pub name: String,
    /// What is left of the prepaid balance (rule M02).
    pub balance: u64,
    /// What was taken from it for metered calls.
    pub charged: u64,
    /// When it activated the KMS (rule K01).
    pub activated: Option<String>,
    /// When the disk service was granted the use of its keys (rule K02).
    pub granted: Option<String>,
    /// RFC 3339.
    pub created: String,
}

/// Accounts, a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccountList {
    /// The accounts.
    pub accounts: Vec<Account>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Adds to an account's balance.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credit {
    /// In micro-units.
    pub amount: u64,
}

/// Metered calls of the account (rule M01), by month.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// The account.
    pub id: String,
    /// The account.
    pub name: String,
    /// What is left of the prepaid balance, in micro-units (rule M02).
    #[serde(default)]
    pub balance: u64,
    /// One row a month, region and kind of call, newest month first.
    pub usage: Vec<UsageRow>,
}

/// Calls of one kind in one month.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UsageRow {
    /// Month, region and kind of call, with dots between.
    #[serde(default)]
    pub id: String,
    /// Same as the id.
    #[serde(default)]
    pub name: String,
    /// `2026-11`
    pub month: String,
    /// Region.
    pub region: String,
    /// `create`, `attach`, `detach`, `snapshot`, `rollback`, `reinit`.
    pub kind: String,
    /// How many.
    pub calls: u64,
    /// What was taken from the balance for them, in micro-units.
    #[serde(default)]
    pub charged: u64,
}

/// Records of the audit log, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditPage {
    /// The records.
    pub audit: Vec<AuditRecord>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A decision (rule M04).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditRecord {
    /// `audit-` and the position.
    #[serde(default)]
    pub id: String,
    /// Same as the id.
    #[serde(default)]
    pub name: String,
    /// Position in the log, from 1.
    pub seq: u64,
    /// RFC 3339.
    pub time: String,
    /// Account.
    pub account: String,
    /// User id of the caller.
    pub uid: u32,
    /// Process id of the caller.
    pub pid: i32,
    /// Id of the request.
    pub request: String,
    /// `disk.create`, `attach`, …
    pub call: String,
    /// Id or name of what it was about.
    pub object: String,
    /// `allowed`, `refused` or `failed`.
    pub decision: String,
    /// Rule that refused.
    pub rule: Option<String>,
    /// Code of the refusal or failure.
    pub code: Option<String>,
    /// SHA-256 over the previous record's hash and this record, hexadecimal.
    pub hash: String,
}

fn yes() -> bool {
    true
}
