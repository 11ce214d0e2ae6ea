//! `sealctl backend`.

use clap::Subcommand;
use sealblk_api::Disk;
use sealblk_api::client::{Client, route};

use crate::failure::Failure;
use crate::output::{Answer, Block};
use crate::values::object;

const RESTART: &str = "\
The new process is of the program as it is installed now. It takes the virtual machine's connection, its memory and the \
open store over from the old one; the guest's requests wait for a moment, and none is lost. If that fails, the old process \
serves on.

Example:
  sealctl backend restart data";

const START: &str = "\
After `sealblk-kms restore` no disk is served by itself: what lies at its path may be another's by now, or of another time. \
Look at `sealctl disk show`, and start what is as it should be; detach the rest.

Example:
  sealctl backend start data";

/// The processes that serve attached disks.
#[derive(Debug, Subcommand)]
pub(crate) enum Backend {
    /// Replace the process that serves a disk by a new one, under the running virtual machine.
    #[command(after_help = RESTART)]
    Restart {
        /// Id or name of the disk.
        #[arg(value_parser = object)]
        disk: String,
    },
    /// Have an attached disk served again, after the catalogue was restored from a backup.
    #[command(after_help = START)]
    Start {
        /// Id or name of the disk.
        #[arg(value_parser = object)]
        disk: String,
    },
}

impl Backend {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let (disk, call) = match self {
            Backend::Restart { disk } => (disk, "restart"),
            Backend::Start { disk } => (disk, "start"),
        };
        let disk: Disk = client.post_empty(&route(&["disks", &disk, call])).await?;
        let pid = disk
            .pid
            .map_or_else(|| "another".to_owned(), |pid| pid.to_string());
        let text = format!("disk {} ({}) is served by process {pid}", disk.name, disk.id);
        Answer::new(&disk, vec![Block::Line(text)])
    }
}
