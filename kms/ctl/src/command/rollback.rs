//! `sealctl rollback`.

use clap::Args;
use sealblk_api::client::{Client, Patience, route};
use sealblk_api::{self as api, Disk};

use crate::confirm::Confirm;
use crate::failure::Failure;
use crate::output::{Answer, Block};
use crate::values::object;

const HELP: &str = "\
What was written since is lost, unless another snapshot holds it. The disk keeps its size (beyond the snapshot's it \
reads zeros) and all of its snapshots, newer ones too.

Refused while the disk is attached: its guest would go on with what it has in its memory, and spoil the disk (rule \
S05). Shut the guest down and detach the disk first; --force does it all the same.

Examples:
  sealctl rollback data before-upgrade
  sealctl rollback data before-upgrade --force";

/// Makes a disk what one of its snapshots holds.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Rollback {
    /// Id or name of the disk.
    #[arg(value_parser = object)]
    disk: String,
    /// Id or name of the snapshot, one of this disk's.
    #[arg(value_parser = object)]
    snapshot: String,
    /// Also while the disk is attached.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    confirm: Confirm,
}

impl Rollback {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let mut wanted = self.disk;
        if self.confirm.is_needed() {
            let disk: Disk = client.get(&route(&["disks", &wanted])).await?;
            let lost = format!(
                "What was written to disk {} ({}) since its snapshot {} is lost",
                disk.name,
                disk.id,
                taken(&disk, &self.snapshot)
            );
            Confirm::ask(client, &lost).await?;
            wanted = disk.id;
        }
        let path = route(&["disks", &wanted, "rollback"]);
        let body = api::Rollback {
            snapshot: self.snapshot.clone(),
            force: self.force,
        };
        let disk: Disk = client.post(&path, &body, Patience::Change).await?;
        let text = format!(
            "disk {} ({}) is as in snapshot {}",
            disk.name, disk.id, self.snapshot
        );
        Answer::new(&disk, vec![Block::Line(text)])
    }
}

/// `before-upgrade of 2026-11-22T…`
fn taken(disk: &Disk, snapshot: &str) -> String {
    let mut snapshots = disk.snapshots.iter().flatten();
    let found = snapshots.find(|row| row.id == snapshot || row.name == snapshot);
    found.map_or(snapshot.to_owned(), |row| {
        format!("{} of {}", row.name, row.created)
    })
}
