//! The KMS and its profile.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::audit::AuditSink;
use super::disk::Sandbox;

/// State of the KMS.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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
    /// Where the root key comes from: `file`, `passphrase` or `credential`.
    pub root_key: String,
    /// What is to be known of that: an algorithm that is not FIPS 140-approved is named here (rule K13).
    pub root_key_note: Option<String>,
    /// Version of the program.
    pub version: String,
    /// Numbers of the account's objects.
    pub disks: u64,
    /// Disks that are attached.
    pub attached: u64,
    /// Registered instances.
    pub instances: u64,
    /// Deleted disks that can be restored; a daemon of an earlier version has none.
    #[serde(default)]
    pub bin: Option<Bin>,
    /// What keeps serving processes in bounds.
    #[serde(default)]
    pub sandbox: Option<KmsSandbox>,
    /// Where records of the audit log go besides, for the account `default`.
    #[serde(default)]
    pub audit_sinks: Vec<AuditSink>,
    /// What the operator should look at.
    pub warnings: Vec<String>,
    /// The same, in the same order, for programs: anything here means that the KMS is degraded for the account.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// An account's deleted disks that can be restored (rule K14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bin {
    /// Their number.
    pub disks: u64,
    /// Bytes that their files took on the host when they were deleted, with those of their snapshots.
    pub allocated: u64,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Condition {
    /// Stable, CamelCase: `KmsNotActivated`, `KmsNotGranted`, `KeyAtRisk`, `ClockJumped`, …
    pub code: String,
    /// A sentence that says what to do.
    pub message: String,
    /// RFC 3339; null where it is not known.
    pub since: Option<String>,
}

/// What keeps serving processes in bounds, should their guests take them over.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KmsSandbox {
    /// What a process has that is started now: `full`, `partial`, or `unknown`.
    pub level: String,
    /// Why it is unknown.
    pub reason: Option<String>,
    /// Whether the daemon was told to serve with all of it or not at all.
    pub required: bool,
    /// What there is, and whether it can be had.
    pub protections: Vec<Protection>,
    /// The account's disks whose processes have less than one that is started now.
    pub less: Vec<LessConfined>,
}

/// One of the things that keep a process in bounds.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Protection {
    /// Its name.
    pub name: String,
    /// Why it cannot be had; null if it can.
    pub missing: Option<String>,
}

/// A disk whose process has less to keep it in bounds.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LessConfined {
    /// Id of the disk.
    pub disk: String,
    /// What its process has.
    pub sandbox: Sandbox,
}

/// The policy profile: what the rules leave to the region's choice. Documented in `docs/rules-profiles.md`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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
    /// Days for which a deleted disk is in the bin, unless other ones are asked for (rule K14); 0: it goes at once.
    #[serde(default)]
    pub retention: u16,
}
