//! What `set` takes and the rules refuse, so that the refusal can be met.

use clap::{ArgAction, Args};

/// What disks, snapshots and images keep for ever.
#[derive(Args, Debug)]
pub(crate) struct Immutable {
    /// Whether its data is encrypted: never changes (rules D03, S01, I02).
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "true|false",
        hide_possible_values = true
    )]
    pub(super) encrypted: Option<bool>,
    /// Id or name of its key: never changes (rules K09, I02).
    #[arg(long)]
    pub(super) key: Option<String>,
}
