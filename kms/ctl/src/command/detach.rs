//! `sealctl detach`.

use clap::Args;
use sealblk_api::client::{Client, Patience, route};
use sealblk_api::{self as api, Disk};

use crate::failure::Failure;
use crate::output::{Answer, Block};
use crate::values::object;

const HELP: &str = "\
Refused while a virtual machine is connected. Shut it down or unplug the disk first, as --unplug does; --force detaches all \
the same, and the guest then gets no answer to its requests.

--unplug asks the guest, over the machine's socket, to let go of the disk: unmount what is on it first. A guest that does not \
answer within 30 seconds keeps the disk, and everything stays as it was (GuestDoesNotAnswer). If the machine does not run, or \
has not the disk, it is detached all the same.

A shared disk that several instances have is detached from the one that is named; the others go on using it.

Examples:
  sealctl detach data
  sealctl detach data --unplug
  sealctl detach data web --force";

/// Detaches a disk.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Detach {
    /// Id or name of the disk.
    #[arg(value_parser = object)]
    disk: String,
    /// Id or name of the instance; if given, the disk must be attached to this one. Of several it must be given.
    #[arg(value_parser = object)]
    instance: Option<String>,
    /// Also while a virtual machine is connected.
    #[arg(long)]
    force: bool,
    /// Take the disk out of the instance's virtual machine first.
    #[arg(long)]
    unplug: bool,
}

impl Detach {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let path = route(&["disks", &self.disk, "detach"]);
        let body = api::Detach {
            instance: self.instance,
            force: self.force,
            unplug: self.unplug,
        };
        let disk: Disk = client.post(&path, &body, Patience::Change).await?;
        let others = match disk.attachments.len() {
            0 => String::new(),
            count => format!(" from that instance, and attached to {count} more"),
        };
        let text = format!("disk {} ({}) is detached{others}", disk.name, disk.id);
        let warnings = disk
            .warnings
            .iter()
            .map(|warning| Block::Line(format!("warning: {warning}")));
        Answer::new(
            &disk,
            std::iter::once(Block::Line(text)).chain(warnings).collect(),
        )
    }
}
