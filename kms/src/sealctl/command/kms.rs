//! `sealctl kms`.

use clap::Subcommand;
use sealblk_kms::api::types::KmsStatus;

use crate::client::{Client, route};
use crate::failure::Failure;
use crate::output::{Answer, Block};

/// The KMS itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Kms {
    /// Activate the KMS for your account in its region (rule K01). Needed once, before the first encrypted disk.
    #[command(after_help = "Example:\n  sealctl kms activate")]
    Activate,
    /// Show region, zone, profile and state of the KMS.
    #[command(after_help = "Example:\n  sealctl -o json kms status")]
    Status,
}

impl Kms {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let status: KmsStatus = match self {
            Kms::Activate => client.post_empty(&route(&["kms", "activate"])).await?,
            Kms::Status => client.get(&route(&["kms"])).await?,
        };
        Answer::new(&status, text(&status))
    }
}

fn text(status: &KmsStatus) -> Vec<Block> {
    let fields = vec![
        ("id", status.id.clone()),
        ("region", status.region.clone()),
        ("zone", status.zone.clone()),
        ("profile", status.profile.clone()),
        ("account", status.account.clone()),
        ("state", status.state.clone()),
        ("root key", status.root_key.clone()),
        ("version", status.version.clone()),
        (
            "disks",
            format!("{} ({} attached)", status.disks, status.attached),
        ),
        ("instances", status.instances.to_string()),
    ];
    let warnings = status
        .warnings
        .iter()
        .map(|warning| Block::Line(format!("warning: {warning}")));
    std::iter::once(Block::Fields(fields)).chain(warnings).collect()
}
