//! Snapshots.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A snapshot of a disk.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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
    /// How many images are made of it.
    pub images: u64,
    /// RFC 3339.
    pub created: String,
    /// Id of the schedule that it was taken by, which deletes it when there are enough newer ones; absent if a caller took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
}

/// Snapshots, a page.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SnapshotList {
    /// The snapshots.
    pub snapshots: Vec<Snapshot>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Takes a snapshot of a disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// Id or name.
    pub disk: String,
    /// Unique among the disk's snapshots.
    pub name: String,
}

/// Changes a snapshot. What is not given stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CopySnapshot {
    /// Name of the region.
    pub to_region: String,
}

/// Takes a snapshot of each disk that is attached to an instance, as of one moment over all of them: all or none. Each counts as a
/// snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshotGroup {
    /// Of each of the snapshots; unique among its disk's.
    pub name: String,
    /// Does without the disks that have a raw store; otherwise these are refused.
    #[serde(default)]
    pub skip_raw: bool,
}

/// Snapshots of one moment.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SnapshotGroup {
    /// Their name.
    pub name: String,
    /// Id of the instance.
    pub instance: String,
    /// The snapshots, in the order in which their disks were attached.
    pub snapshots: Vec<Snapshot>,
    /// Ids of the disks that have a raw store, of which there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
}
