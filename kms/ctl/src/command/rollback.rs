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
        let (mut wanted, mut snapshot) = (self.disk, self.snapshot.clone());
        if self.confirm.is_needed() {
            let disk: Disk = client.get(&route(&["disks", &wanted])).await?;
            let mut snapshots = disk.snapshots.iter().flatten();
            let found = snapshots.find(|row| row.id == snapshot || row.name == snapshot);
            // What is not found is refused by the daemon.
            let taken = found.map_or(snapshot.clone(), |row| format!("{} of {}", row.name, row.created));
            let lost = format!(
                "What was written to disk {} ({}) since its snapshot {taken} is lost",
                disk.name, disk.id
            );
            Confirm::ask(client, &lost).await?;
            snapshot = found.map_or(snapshot, |row| row.id.clone());
            wanted = disk.id;
        }
        let path = route(&["disks", &wanted, "rollback"]);
        let body = api::Rollback {
            snapshot,
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
