//! Schedules of snapshots.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Has snapshots of a disk taken at intervals, from now on; the schedule that the disk has is changed, and keeps its snapshots.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSnapshots {
    /// Seconds from one to the next, from 60 on.
    pub every_seconds: u64,
    /// How many of its snapshots stay, 511 at most: the oldest of the others is deleted when a new one has been taken. Snapshots
    /// that are not the schedule's do not count, and stay.
    pub keep: u32,
    /// What the names of its snapshots begin with; a hyphen and the time follow. Absent: `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// By which snapshots of a disk are taken.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Schedule {
    /// `plan-…`
    pub id: String,
    /// Id of the disk.
    pub disk: String,
    /// Name of the disk.
    pub disk_name: String,
    /// What the names of its snapshots begin with.
    pub name: String,
    /// Seconds from one to the next.
    pub every_seconds: u64,
    /// How many of its snapshots stay.
    pub keep: u32,
    /// How many there are.
    pub snapshots: u64,
    /// User id of who has made it, or changed it last: its snapshots are taken as calls of theirs.
    pub uid: u32,
    /// RFC 3339.
    pub created: String,
    /// When the next one is taken, or tried again; RFC 3339.
    pub next_snapshot: String,
    /// When the last one was taken.
    pub last_snapshot: Option<String>,
    /// Why the last attempt failed to take one, or to delete one; null if it did not.
    pub last_error: Option<String>,
}

/// Schedules, a page.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ScheduleList {
    /// The schedules.
    pub schedules: Vec<Schedule>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
