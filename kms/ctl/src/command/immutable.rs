//! What `set` takes and the rules refuse, so that the refusal can be met.

use clap::Args;

use super::encryption::Encryption;

/// What disks, snapshots and images keep for ever.
#[derive(Args, Debug)]
#[command(mut_arg("encrypted", |arg| arg.help("Whether its data is encrypted: never changes (rules D03, S01, I02)")))]
pub(crate) struct Immutable {
    #[command(flatten)]
    pub(super) encryption: Encryption,
    /// Id or name of its key: never changes (rules K09, I02).
    #[arg(long)]
    pub(super) key: Option<String>,
}
