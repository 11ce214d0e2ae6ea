//! `sealctl snapshot`.

use clap::Subcommand;
use sealblk_api::client::{Client, Patience, route, with};
use sealblk_api::{self as api, CreateSnapshot, SnapshotList};

use super::encryption::Encryption;
use super::immutable::Immutable;
use super::schedule::{self, NewSchedule};
use crate::confirm::Confirm;
use crate::failure::Failure;
use crate::output::{Answer, Block, fixed, flexible, or_dash, yes_no};
use crate::size;
use crate::values::object;

const CREATE_HELP: &str = "\
Takes no time, however large the disk is, and no space until the disk is written. It is encrypted as the disk is, \
with the same key (rule S01).

A disk may be in use. Then the snapshot holds what a loss of power at that moment would have left: flush in the guest, \
or freeze its file systems, for more.

Example:
  sealctl snapshot create data before-upgrade";

const GROUP_HELP: &str = "\
All disks of the instance come to rest first, then each gets its snapshot, then all go on: no write is in one of the snapshots \
that the guest has made after another that is not. All disks have a snapshot of this name afterwards, or none has. Guests wait \
for ten seconds at most, as a rule for a fraction of one. Each counts as a snapshot.

Examples:
  sealctl snapshot create-group web before-upgrade
  sealctl snapshot create-group web before-upgrade --skip-raw";

const LIST_HELP: &str = "\
With a disk, UNIQUE is the space that deleting the snapshot alone would give back.

Examples:
  sealctl snapshot list
  sealctl snapshot list data";

const SET_HELP: &str = "\
Encryption and key of a snapshot are its disk's and never change: asking for others is refused (rules S01, K09).

Example:
  sealctl snapshot set data/before-upgrade --name old";

const COPY_HELP: &str = "\
An encrypted snapshot does not leave its region (rule S06), and a KMS knows no other region's service. Make a disk from \
the snapshot, and copy the data in a guest to a disk of the other region.

Example:
  sealctl snapshot copy data/before-upgrade --to-region eu-2";

const DELETE_HELP: &str = "\
It disappears at once, and its space is given back in the background. What disks that were made from it still read \
stays as long as they do, and all of it as long as there are images of it (rule S07).

Example:
  sealctl snapshot delete data/before-upgrade";

/// Snapshots of disks. One is named by its id, as DISK/NAME, or by its name if no other disk has a snapshot of that
/// name.
#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Take a snapshot of a disk as it is now.
    #[command(after_help = CREATE_HELP)]
    Create {
        /// Id or name of the disk.
        #[arg(value_parser = object)]
        disk: String,
        /// Name, unique among the disk's snapshots: 1 to 64 letters, digits, dots, hyphens and underscores.
        name: String,
    },
    /// Take a snapshot of each disk of an instance, as of one moment over all of them.
    #[command(after_help = GROUP_HELP)]
    CreateGroup {
        /// Id or name of the instance.
        #[arg(value_parser = object)]
        instance: String,
        /// Name of each of the snapshots, unique among its disk's.
        name: String,
        /// Do without the disks that have a raw store.
        #[arg(long)]
        skip_raw: bool,
    },
    /// List snapshots, of one disk or of all.
    #[command(after_help = LIST_HELP)]
    List {
        /// Id or name of the disk.
        #[arg(value_parser = object)]
        disk: Option<String>,
    },
    /// Show one snapshot.
    #[command(after_help = "Example:\n  sealctl snapshot show data/before-upgrade")]
    Show {
        /// Id, DISK/NAME or name of the snapshot.
        #[arg(value_parser = object)]
        snapshot: String,
    },
    /// Rename a snapshot.
    #[command(after_help = SET_HELP)]
    Set {
        /// Id, DISK/NAME or name of the snapshot.
        #[arg(value_parser = object)]
        snapshot: String,
        /// Its new name, unique among the disk's snapshots.
        #[arg(long, required_unless_present_any = ["encrypted", "key"])]
        name: Option<String>,
        #[command(flatten)]
        immutable: Immutable,
    },
    /// Copy a snapshot to another region: refused.
    #[command(after_help = COPY_HELP)]
    Copy {
        /// Id, DISK/NAME or name of the snapshot.
        #[arg(value_parser = object)]
        snapshot: String,
        /// The region.
        #[arg(long, value_name = "REGION")]
        to_region: String,
    },
    /// Have snapshots of a disk taken at intervals, and the oldest of these deleted.
    #[command(after_help = schedule::HELP)]
    Schedule(NewSchedule),
    /// List the schedules by which snapshots are taken.
    #[command(after_help = "Example:\n  sealctl snapshot schedules")]
    Schedules,
    /// End a disk's schedule of snapshots; the snapshots stay.
    #[command(after_help = "Example:\n  sealctl snapshot unschedule data")]
    Unschedule {
        /// Id or name of the disk.
        #[arg(value_parser = object)]
        disk: String,
    },
    /// Delete a snapshot.
    #[command(after_help = DELETE_HELP)]
    Delete {
        /// Id, DISK/NAME or name of the snapshot.
        #[arg(value_parser = object)]
        snapshot: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

impl Snapshot {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        match self {
            Snapshot::Create { disk, name } => {
                let body = CreateSnapshot { disk, name };
                let snapshot: api::Snapshot = client
                    .post(&route(&["snapshots"]), &body, Patience::Change)
                    .await?;
                Answer::new(&snapshot, fields(&snapshot))
            }
            Snapshot::CreateGroup {
                instance,
                name,
                skip_raw,
            } => {
                let body = api::CreateSnapshotGroup { name, skip_raw };
                let path = route(&["instances", &instance, "snapshots"]);
                let group: api::SnapshotGroup = client.post(&path, &body, Patience::Change).await?;
                let mut blocks = vec![table_of(&group.snapshots, true)];
                if !group.skipped.is_empty() {
                    let text = format!(
                        "no snapshot, since their stores are raw: {}",
                        group.skipped.join(", ")
                    );
                    blocks.push(Block::Line(text));
                }
                Answer::new(&group, blocks)
            }
            Snapshot::List { disk } => {
                let path = route(&["snapshots"]);
                let path = disk.map_or(path.clone(), |disk| with(&path, "disk", &disk));
                let list: SnapshotList = client.list(&path).await?;
                Answer::new(&list, vec![table_of(&list.snapshots, true)])
            }
            Snapshot::Show { snapshot } => {
                let snapshot: api::Snapshot = client.get(&route(&["snapshots", &snapshot])).await?;
                Answer::new(&snapshot, fields(&snapshot))
            }
            Snapshot::Set {
                snapshot,
                name,
                immutable:
                    Immutable {
                        encryption: Encryption { encrypted },
                        key,
                    },
            } => {
                let body = api::SetSnapshot { name, encrypted, key };
                let snapshot: api::Snapshot = client.patch(&route(&["snapshots", &snapshot]), &body).await?;
                Answer::new(&snapshot, fields(&snapshot))
            }
            Snapshot::Copy { snapshot, to_region } => {
                let body = api::CopySnapshot { to_region };
                let path = route(&["snapshots", &snapshot, "copy"]);
                let snapshot: api::Snapshot = client.post(&path, &body, Patience::Change).await?;
                Answer::new(&snapshot, fields(&snapshot))
            }
            Snapshot::Schedule(new) => new.run(client).await,
            Snapshot::Schedules => schedule::list(client).await,
            Snapshot::Unschedule { disk } => schedule::remove(client, &disk).await,
            Snapshot::Delete {
                mut snapshot,
                confirm,
            } => {
                if confirm.is_needed() {
                    let found: api::Snapshot = client.get(&route(&["snapshots", &snapshot])).await?;
                    let unique = found
                        .unique_bytes
                        .map(|bytes| format!(": {}", size::human(bytes)));
                    let lost = format!(
                        "What snapshot {} ({}) of disk {} alone holds, of {}, is lost{}",
                        found.name,
                        found.id,
                        disk(&found),
                        found.created,
                        unique.unwrap_or_default()
                    );
                    Confirm::ask(client, &lost).await?;
                    snapshot = found.id;
                }
                let snapshot: api::Snapshot = client.delete(&route(&["snapshots", &snapshot])).await?;
                let text = format!("snapshot {} ({}) is deleted", snapshot.name, snapshot.id);
                Answer::new(&snapshot, vec![Block::Line(text)])
            }
        }
    }
}

/// Snapshots under headings; `with_disk` where they are of several disks.
pub(super) fn table_of(snapshots: &[api::Snapshot], with_disk: bool) -> Block {
    let mut columns = vec![
        flexible("SNAPSHOT", |snapshot: &api::Snapshot| snapshot.name.clone()),
        fixed("ID", |snapshot| snapshot.id.clone()),
    ];
    if with_disk {
        columns.push(flexible("DISK", disk));
    }
    columns.extend([
        fixed("SIZE", |snapshot: &api::Snapshot| size::human(snapshot.size)),
        fixed("UNIQUE", |snapshot| {
            or_dash(&snapshot.unique_bytes.map(size::human))
        }),
        fixed("CREATED", |snapshot| snapshot.created.clone()),
    ]);
    Block::table(snapshots, &columns)
}

/// The name of its disk, or the id of one that has been deleted.
fn disk(snapshot: &api::Snapshot) -> String {
    snapshot.disk_name.as_ref().unwrap_or(&snapshot.disk).clone()
}

/// Everything about a snapshot.
fn fields(snapshot: &api::Snapshot) -> Vec<Block> {
    let mut fields = vec![
        ("id", snapshot.id.clone()),
        ("name", snapshot.name.clone()),
        ("disk", disk(snapshot)),
        ("state", snapshot.state.clone()),
        ("size", size::exact(snapshot.size)),
        ("unique", or_dash(&snapshot.unique_bytes.map(size::human))),
        ("encrypted", yes_no(snapshot.encrypted)),
    ];
    if let Some(lineage) = &snapshot.lineage {
        fields.push(("lineage", lineage.clone()));
    }
    fields.push(("clones", snapshot.clones.to_string()));
    fields.push(("images", snapshot.images.to_string()));
    fields.push(("created", snapshot.created.clone()));
    if let Some(schedule) = &snapshot.schedule {
        fields.push(("schedule", schedule.clone()));
    }
    vec![Block::Fields(fields)]
}
