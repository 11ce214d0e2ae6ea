//! `sealctl disk copy`, and the waiting for what takes long.

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use sealblk_api::client::{Client, Patience, route};
use sealblk_api::{self as api, ApiError, Backup, Copy, Disk, Image};
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::output::{Answer, Block};
use crate::size;
use crate::values::object;

/// Time between two looks at a copy.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

const COPY_HELP: &str = "\
Both disks are detached, and nothing else can be done with them until the copy has ended. The data is copied, made \
durable, and then read again on both sides and compared. What the destination has beyond the source's size reads zeros. \
What a layered disk has never written takes no space in a layered copy.

This is the way from a plain disk to an encrypted one, and back: encryption itself never changes (rules D03, D04).

The copy goes on if this command is stopped, and after a crash from where it was; `disk show` tells how far it has come. \
A disk that may hold data is copied to with --overwrite only; its snapshots stay. After a failure give the command again: \
it begins anew.

Examples:
  sealctl disk create data-encrypted --size 10GiB
  sealctl disk copy data data-encrypted
  sealctl disk copy data old-copy --overwrite --no-wait
  sealctl disk copy --cancel old-copy";

/// Arguments of `disk copy`.
#[derive(Args, Debug)]
#[command(after_help = COPY_HELP)]
pub(crate) struct CopyDisk {
    /// Id or name of the disk to copy from; with --cancel, of the disk that is copied to.
    #[arg(value_parser = object, value_name = "SOURCE")]
    first: String,
    /// Id or name of the disk to copy to, of at least the same size.
    #[arg(value_parser = object, required_unless_present = "cancel", conflicts_with = "cancel")]
    destination: Option<String>,
    /// Also if the destination may hold data.
    #[arg(long, conflicts_with = "cancel")]
    overwrite: bool,
    /// Do not wait for the end.
    #[arg(long, conflicts_with = "cancel")]
    no_wait: bool,
    /// End the copy to the disk; what has been copied stays there.
    #[arg(long)]
    cancel: bool,
}

impl CopyDisk {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let Some(destination) = self.destination else {
            return cancel(client, &self.first).await;
        };
        let path = route(&["disks", &destination, "copy"]);
        let body = api::CopyDisk {
            source: self.first.clone(),
            overwrite: self.overwrite,
        };
        let disk: Disk = client.post(&path, &body, Patience::Change).await?;
        if self.no_wait {
            let text = format!("disk {} is being copied to {}", self.first, disk.name);
            return Answer::new(&disk, vec![Block::Line(text)]);
        }
        let disk = wait(client, disk).await?;
        let text = format!(
            "disk {} is copied to {}, and compared: {}",
            self.first,
            disk.name,
            size::human(disk.copy.as_ref().map_or(0, |copy| copy.total))
        );
        Answer::new(&disk, vec![Block::Line(text)])
    }
}

async fn cancel(client: &mut Client, disk: &str) -> Result<Answer, Failure> {
    let path = route(&["disks", disk, "copy", "cancel"]);
    let disk: Disk = client
        .post(&path, &serde_json::json!({}), Patience::Change)
        .await?;
    let text = format!("the copy to disk {} ({}) is cancelled", disk.name, disk.id);
    Answer::new(&disk, vec![Block::Line(text)])
}

/// What is copied.
pub(super) trait Copied: DeserializeOwned {
    /// Where it is shown.
    fn path(&self) -> String;
    /// The copy that it is shown with.
    fn copy(&self) -> Option<&Copy>;
}

impl Copied for Disk {
    fn path(&self) -> String {
        route(&["disks", &self.id])
    }

    fn copy(&self) -> Option<&Copy> {
        self.copy.as_ref()
    }
}

impl Copied for Backup {
    fn path(&self) -> String {
        route(&["backups", &self.id])
    }

    fn copy(&self) -> Option<&Copy> {
        self.copy.as_ref()
    }
}

impl Copied for Image {
    fn path(&self) -> String {
        route(&["images", &self.id])
    }

    fn copy(&self) -> Option<&Copy> {
        self.copy.as_ref()
    }
}

/// Whether the copy has not ended.
pub(super) fn goes_on(copy: &Copy) -> bool {
    matches!(copy.phase.as_str(), "copy" | "verify")
}

/// Waits until the copy has ended, and shows how far it has come if somebody watches.
///
/// # Errors
/// Why it has failed; and if it was cancelled.
pub(super) async fn wait<T: Copied>(client: &mut Client, mut object: T) -> Result<T, Failure> {
    let bar = bar();
    let begun = object.copy().map(|copy| copy.id.clone());
    let path = object.path();
    loop {
        let copy = object.copy().filter(|copy| Some(&copy.id) == begun.as_ref());
        match copy.map_or("cancelled", |copy| copy.phase.as_str()) {
            "copy" | "verify" => show(&bar, copy),
            "done" => {
                bar.finish_and_clear();
                return Ok(object);
            }
            ended => {
                bar.finish_and_clear();
                return Err(failure(ended, copy));
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        object = client.get(&path).await?;
    }
}

fn bar() -> ProgressBar {
    // Nothing is drawn where standard error is no terminal.
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg:7} {wide_bar} {binary_bytes}/{binary_total_bytes} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn show(bar: &ProgressBar, copy: Option<&Copy>) {
    let Some(copy) = copy else { return };
    if bar.message() != copy.phase {
        bar.set_message(copy.phase.clone());
        bar.reset_eta();
    }
    bar.set_length(copy.total);
    bar.set_position(copy.done);
}

fn failure(phase: &str, copy: Option<&Copy>) -> Failure {
    let trouble = copy.and_then(|copy| copy.trouble.clone());
    let (code, message) = match phase {
        "failed" => ("CopyFailed", trouble.unwrap_or_default()),
        _ => (
            "CopyCancelled",
            "the copy was cancelled by somebody else".to_owned(),
        ),
    };
    Failure::Refused(ApiError {
        code: code.to_owned(),
        rule: None,
        message,
        request: None,
    })
}

/// How far a copy has come, in words.
pub(super) fn sentence(copy: &Copy) -> String {
    let from = copy
        .from
        .as_deref()
        .or(copy.file.as_deref())
        .unwrap_or("a deleted disk");
    let to = copy
        .to
        .as_deref()
        .or(copy.file.as_deref())
        .unwrap_or("a deleted disk");
    let percent = (copy.done * 100).checked_div(copy.total).unwrap_or(100);
    let far = format!("{percent}% of {}", size::human(copy.total));
    let trouble = copy.trouble.as_ref().map(|trouble| format!(": {trouble}"));
    let how = match copy.phase.as_str() {
        "copy" => format!("copying, {far}"),
        "verify" => format!("comparing, {far}"),
        other => other.to_owned(),
    };
    format!("{from} to {to}: {how}{}", trouble.unwrap_or_default())
}
